//! The scripts one by one: what each answers, and what it leaves alone.

use smsfleet::adapters::redis::client::Redis;
use smsfleet::adapters::redis::scripts;

use super::shared;

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn number(redis: &Redis, script: &std::sync::LazyLock<deadpool_redis::redis::Script>, key: &str, args: &[&str]) -> i64 {
    redis.run(script, &[redis.key(key)], &texts(args)).await.expect("it runs")
}

#[tokio::test]
async fn a_lock_is_taken_renewed_and_released_by_its_token_only() {
    let redis = shared().await;
    assert_eq!(number(&redis, &scripts::LEASE_ACQUIRE, "lock", &["7", "60000"]).await, 1);
    assert_eq!(number(&redis, &scripts::LEASE_ACQUIRE, "lock", &["8", "60000"]).await, 0);
    assert_eq!(number(&redis, &scripts::LEASE_ACQUIRE, "lock", &["7", "60000"]).await, 1, "the same token renews");
    assert_eq!(number(&redis, &scripts::LEASE_RELEASE, "lock", &["8"]).await, 0);
    assert_eq!(number(&redis, &scripts::LEASE_RELEASE, "lock", &["7"]).await, 1);
    assert_eq!(number(&redis, &scripts::LEASE_RELEASE, "lock", &["7"]).await, 0);
    assert_eq!(number(&redis, &scripts::LEASE_ACQUIRE, "lock", &["8", "1"]).await, 1);
}

type Loaded = (String, String, u64, u64);
type Stored = (u8, String, String, u64, u64);

async fn load(redis: &Redis) -> Loaded {
    redis.run(&scripts::RATE_LOAD, &[redis.key("rate")], &[]).await.expect("it runs")
}

async fn store(redis: &Redis, sequence: &str, state: &str) -> Stored {
    redis.run(&scripts::RATE_STORE, &[redis.key("rate")], &texts(&[sequence, state, "60000"])).await.expect("it runs")
}

#[tokio::test]
async fn a_rate_is_stored_only_by_who_saw_the_latest() {
    let redis = shared().await;
    let (sequence, state, seconds, _) = load(&redis).await;
    assert!(sequence.is_empty() && state.is_empty() && seconds > 1_600_000_000, "an empty key, and the server's clock");
    assert_eq!(store(&redis, "12", "x").await.0, 0, "what was read is gone: nothing is stored");
    assert_eq!(store(&redis, "", "first").await.0, 1);
    let (first, state, ..) = load(&redis).await;
    assert_eq!(state, "first");
    assert!(first.parse::<u64>().expect("a number") > 1_600_000_000_000_000, "it begins with the clock: {first}");
    let (stored, sequence, state, newer, _) = store(&redis, "", "second").await;
    assert_eq!((stored, sequence.as_str(), state.as_str()), (0, first.as_str(), "first"), "somebody was faster");
    assert!(newer >= seconds);
    assert_eq!(store(&redis, &first, "second").await.0, 1);
    let (second, state, ..) = load(&redis).await;
    assert_eq!(second.parse::<u64>().expect("a number"), first.parse::<u64>().expect("a number") + 1);
    assert_eq!((state.as_str(), store(&redis, &first, "third").await.0), ("second", 0));
    assert_eq!(number(&redis, &scripts::TALLY_CLEAR, "rate", &[]).await, 1);
    store(&redis, "", "again").await;
    assert!(load(&redis).await.0 > second, "no sequence of a lost state comes again");
}

#[tokio::test]
async fn counts_are_added_set_read_and_forgotten() {
    let redis = shared().await;
    let key = [redis.key("counts")];
    let add = texts(&["60000", "a", "5", "b", "7"]);
    assert_eq!(redis.run::<Vec<u64>>(&scripts::TALLY_ADD, &key, &add).await, Ok(vec![5, 7]));
    assert_eq!(redis.run::<Vec<u64>>(&scripts::TALLY_ADD, &key, &texts(&["60000", "b", "1"])).await, Ok(vec![8]));
    assert_eq!(number(&redis, &scripts::TALLY_SET, "counts", &["60000", "a", "1"]).await, 1);
    let read = texts(&["b", "none", "a"]);
    assert_eq!(redis.run::<Vec<u64>>(&scripts::TALLY_READ, &key, &read).await, Ok(vec![8, 0, 1]));
    assert_eq!(number(&redis, &scripts::TALLY_CLEAR, "counts", &[]).await, 1);
    assert_eq!(redis.run::<Vec<u64>>(&scripts::TALLY_READ, &key, &read).await, Ok(vec![0, 0, 0]));
    // They end by themselves.
    assert_eq!(number(&redis, &scripts::TALLY_SET, "counts", &["1", "a", "1"]).await, 1);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(number(&redis, &scripts::TALLY_CLEAR, "counts", &[]).await, 0);
}

#[tokio::test]
async fn reports_add_up_until_the_leader_takes_them() {
    let redis = shared().await;
    let keys = ["{b}:load", "{b}:writers", "{b}:published"].map(|name| redis.key(name));
    let report = async |writer: &str, packs: &str, overloads: &str, slowest: &str| {
        let args = texts(&[writer, packs, overloads, slowest, "400"]);
        redis.run::<(String, u64)>(&scripts::BUDGET_REPORT, &keys, &args).await.expect("it runs")
    };
    let gather = async |take: &str| {
        let keys = [keys[0].clone(), keys[2].clone()];
        redis.run::<(u64, u64, u64, String)>(&scripts::BUDGET_GATHER, &keys, &texts(&[take])).await.expect("it runs")
    };
    assert_eq!(report("w1", "10", "0", "500").await, (String::new(), 1));
    assert_eq!(report("w2", "5", "2", "300").await, (String::new(), 2));
    redis.run::<i64>(&scripts::BUDGET_PUBLISH, &keys[2..], &texts(&["{}", "60000"])).await.expect("it runs");
    assert_eq!(report("w1", "1", "0", "100").await, ("{}".into(), 2));
    assert_eq!(gather("0").await, (0, 0, 0, "{}".into()), "a look takes nothing");
    assert_eq!(gather("1").await, (16, 2, 500, "{}".into()));
    assert_eq!(gather("1").await, (0, 0, 0, "{}".into()));
    tokio::time::sleep(std::time::Duration::from_millis(450)).await;
    assert_eq!(report("w3", "0", "0", "0").await, ("{}".into(), 1), "the others fell silent");
}
