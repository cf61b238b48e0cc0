//! Whatever a host says before the script, reading it neither panics nor takes more memory than noise may have; how the
//! bytes come in makes no difference, and what comes after the start marker is output, byte for byte.
//!
//! The first byte of the input says how many sizes follow, and these into what packets the rest is cut, over and over.

#![no_main]

// The reader by itself: it needs nothing of the floor but a token, so nothing else is built for it.
#[path = "../../src/domain/delivery/reply.rs"]
mod reply;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use libfuzzer_sys::fuzz_target;
use reply::{DeliveryError, MAX_NOISE, Reader};

/// The one token that the seeds know.
#[derive(Debug)]
struct Token;

impl Token {
    #[allow(clippy::unused_self, reason = "as the real one has it")]
    fn as_str(&self) -> &'static str {
        "07070707070707070707070707070707"
    }
}

/// Counts the bytes that are in use, and the most that ever were.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, bytes: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(bytes, layout) }
    }
}

/// A growing buffer has up to twice the room that it needs, and while it moves there are two of them; the rest is for
/// the longest refusal, in its several forms.
const MOST_MEMORY: usize = 4 * MAX_NOISE + 64 * 1024;

/// How often the stream is repeated for the sake of memory: a reader that kept all of it would be found out.
const REPEATS: usize = 16;

type Outcome = (Result<Vec<u8>, DeliveryError>, bool, String);

/// What comes of `stream` in packets of these sizes.
fn read(stream: &[u8], sizes: &[u8]) -> Outcome {
    let mut reader = Reader::new(&Token);
    let (mut rest, mut output, mut turn) = (stream, Vec::new(), 0);
    while !rest.is_empty() {
        let size = sizes.get(turn % sizes.len().max(1)).map_or(rest.len(), |size| usize::from(*size).max(1));
        turn += 1;
        let (packet, later) = rest.split_at(size.min(rest.len()));
        match reader.feed(packet) {
            Ok(bytes) => output.extend_from_slice(bytes),
            Err(error) => {
                assert_eq!(reader.feed(later), Err(error.clone()), "a refusal is final");
                return (Err(error), reader.started(), reader.noise());
            }
        }
        rest = later;
    }
    (Ok(output), reader.started(), reader.noise())
}

fuzz_target!(|input: &[u8]| {
    let Some((count, rest)) = input.split_first() else { return };
    let (sizes, stream) = rest.split_at(usize::from(*count).min(rest.len()));

    let whole = read(stream, &[]);
    assert_eq!(read(stream, sizes), whole, "how it is cut makes a difference");

    let marker = format!("{} start\n", Token.as_str());
    let found = stream.windows(marker.len()).position(|window| window == marker.as_bytes());
    match whole {
        (Ok(output), true, _) => {
            let end = found.expect("a start without its marker") + marker.len();
            assert_eq!(output, stream[end..], "output is not what follows the marker");
        }
        (output, false, _) => assert!(output.is_err() || output.is_ok_and(|output| output.is_empty())),
        (Err(error), true, _) => panic!("started, and refused: {error}"),
    }

    let before = USED.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let mut reader = Reader::new(&Token);
    for _ in 0..REPEATS {
        let _ = reader.feed(stream);
    }
    let _ = reader.noise();
    let most = MOST.load(Ordering::Relaxed) - before;
    assert!(most < MOST_MEMORY, "{most} bytes");
});
