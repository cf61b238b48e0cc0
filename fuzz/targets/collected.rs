//! Whatever a host answers to a start, a look or an end of a detached job, reading it neither panics nor believes more
//! than was asked for; an answer that is cut anywhere tells nothing.
//!
//! The first two bytes of the input say how much of each output is known, and how much more is asked for.

#![no_main]

// The floor by itself: it needs neither SSH nor a runtime, so neither is built for it.
#[path = "../../src/domain/mod.rs"]
#[allow(dead_code, unused_imports, reason = "one target uses one corner of the floor")]
mod domain;

use domain::delivery::Token;
use domain::detached::collect::{self, Ask, MAX_PIECE, Piece, Verdict};
use domain::detached::{Attempt, cancel, read_start};
use libfuzzer_sys::fuzz_target;

/// What the seeds are about, by the one token that they know.
fn attempt(number: u32) -> Attempt {
    let (run, instance) = ("a-20261122T221500Z".parse(), "web-1".parse());
    Attempt { run: run.expect("a run"), instance: instance.expect("an instance"), number }
}

/// Asserts that `piece` is what an answer of `length` bytes may bring from `offset` on.
fn check(piece: &Piece, offset: u64, most: u32, length: usize) {
    let bytes = piece.bytes.len() as u64;
    assert!(piece.bytes.len() <= length && bytes <= u64::from(most.min(MAX_PIECE)), "more than there is");
    assert_eq!(bytes, piece.stored.saturating_sub(offset).min(u64::from(most)), "other bytes than were asked for");
}

fuzz_target!(|input: &[u8]| {
    let [known, most, answer @ ..] = input else { return };
    let (token, offset, most) = (Token::new([7; 16]), u64::from(*known) * 100, u32::from(*most));
    let asks = [Ask::Look { attempt: attempt(1), out: offset, err: 0, most }, Ask::Forget(attempt(2))];
    if let Ok(found) = collect::read(&token, &asks, answer) {
        let [first, second] = &found[..] else { panic!("{} answers to two questions", found.len()) };
        check(&first.out, offset, most, answer.len());
        check(&first.err, 0, most, answer.len());
        assert_eq!(second.verdict, Verdict::Vanished);
        for end in 0..answer.len() {
            assert!(collect::read(&token, &asks, &answer[..end]).is_err(), "half an answer is believed");
        }
    }
    if let Ok(cancelled) = cancel::read(&token, &attempt(1), answer) {
        assert!(cancelled.named.len() as u64 <= cancelled.survivors);
        let last = &answer[..answer.len() - 1];
        assert!(cancel::read(&token, &attempt(1), last).is_err(), "half an answer is believed");
    }
    if read_start(&token, answer).is_ok() {
        assert!(answer.len() < 64, "a start is answered by one line");
    }
});
