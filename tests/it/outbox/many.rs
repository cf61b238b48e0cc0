//! Many messages at a time: in what order they are sent, and that none holds up another.

use super::*;

#[tokio::test]
async fn first_tries_come_before_others_and_some_of_one_rule_at_a_time() {
    const SLACK: &str = "{ on: failure, slack: \"https://b.example\" }";
    let (store, post) = (Memory::default(), Post::default());
    let runs = Runs::new(store.clone());
    for minute in 0..32 {
        put(&runs, SLACK, "rotate-logs", minute).await;
    }
    post.down(&[Channel::Slack]);
    let delivery = deliver(&runs, &post, at(0)).await.unwrap();
    assert_eq!((delivery.troubles.len(), delivery.next), (32, Some(at(30))));
    post.down(&[]);
    put(&runs, SLACK, "rotate-logs", 59).await;
    let delivery = deliver(&runs, &post, at(30)).await.unwrap();
    assert_eq!((delivery.told.len(), delivery.next), (32, Some(at(30))));
    assert!(delivery.told.iter().any(|(run, _)| run.as_str().contains("T2259")), "{:?}", delivery.told);
    assert_eq!(deliver(&runs, &post, at(30)).await.unwrap().told.len(), 1);
}

/// A post office that takes nine seconds wherever the webhook says so, and stumbles over another one.
#[derive(Clone, Default)]
struct Uneven(Arc<Mutex<Vec<(String, Duration)>>>);

impl Notifier for Uneven {
    async fn send(&self, notice: &Notice, rule: &Notify, _channel: Channel) -> Result<(), NotifyError> {
        let url = String::from(rule.webhook.clone().unwrap());
        let now = tokio::time::Instant::now();
        assert!(!url.contains("stumbles"), "this server's answer is not foreseen");
        if url.contains("slow") {
            tokio::time::sleep(Duration::from_secs(9)).await;
        }
        self.0.lock().unwrap().push((notice.run.as_str().to_owned(), now.elapsed()));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn server_that_is_slow_holds_up_only_its_own_messages() {
    let (store, post) = (Memory::default(), Uneven::default());
    let runs = Runs::new(store.clone());
    for minute in 0..60 {
        put(&runs, "{ on: failure, webhook: \"https://slow.example\" }", "a", minute).await;
        let quick = format!("{{ on: failure, webhook: \"https://quick-{}.example\" }}", minute % 2);
        put(&runs, &quick, "b", minute).await;
    }
    let began = tokio::time::Instant::now();
    let delivery = deliver(&runs, &post, at(0)).await.unwrap();
    // Four at a time, begun in 20 s: at 0, 9 and 18 s.
    let told = |job: &str| delivery.told.iter().filter(|(run, _)| run.as_str().starts_with(job)).count();
    assert_eq!((told("a-"), told("b-"), began.elapsed()), (12, 60, Duration::from_secs(27)));
    assert_eq!(delivery.next, Some(at(0)));
    assert!(post.0.lock().unwrap()[..60].iter().all(|(run, _)| run.starts_with("b-")));
    let mut now = at(0);
    while let Some(next) = deliver(&runs, &post, now).await.unwrap().next {
        now = now.max(next);
    }
    assert_eq!((post.0.lock().unwrap().len(), outbox(&store)), (120, vec![]));
}

#[tokio::test]
async fn stumble_over_one_message_ends_no_other_and_comes_back_later() {
    let (store, post) = (Memory::default(), Uneven::default());
    let runs = Runs::new(store.clone());
    put(&runs, "{ on: failure, webhook: \"https://stumbles.example\" }", "a", 0).await;
    put(&runs, "{ on: failure, webhook: \"https://a.example\" }", "b", 0).await;
    let delivery = deliver(&runs, &post, at(0)).await.unwrap();
    let troubles: Vec<_> = delivery.troubles.iter().map(|it| (it.run.as_str(), &*it.why, it.given_up)).collect();
    assert_eq!(troubles, [("a-20261122T220000Z", "a fault of sshjob itself; please report it", false)]);
    assert_eq!((delivery.told.len(), delivery.next), (1, Some(at(30))));
    assert_eq!(deliver(&runs, &post, at(29)).await.unwrap().next, Some(at(30)));
    assert_eq!(deliver(&runs, &post, at(30)).await.unwrap().next, Some(at(90)));
}

#[tokio::test]
async fn outbox_of_a_long_outage_drains_within_a_few_looks_and_tells_everybody_once() {
    let (store, post) = (Memory::default(), Post::default());
    let runs = Runs::new(store.clone());
    post.down(&[Channel::Webhook]);
    let mut now = at(0);
    for n in 0..600 {
        let job = format!("job-{}", n % 20);
        put(&runs, &format!("{{ on: failure, webhook: \"https://{job}.example\" }}"), &job, n / 20).await;
    }
    for _ in 0..50 {
        now = deliver(&runs, &post, now).await.unwrap().next.unwrap().max(now);
    }
    assert_eq!((post.sent().len(), outbox(&store).len()), (0, 600));
    post.down(&[]);
    now += Duration::from_hours(1);
    let mut looks = 1;
    while deliver(&runs, &post, now).await.unwrap().next.is_some() {
        looks += 1;
    }
    assert_eq!((post.sent().len(), outbox(&store).len()), (600, 0));
    // 256 at a time, and 32 of one rule.
    assert_eq!(looks, 3);
}
