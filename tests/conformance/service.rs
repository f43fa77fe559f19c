//! Documents and journals: what the service around the fleet keeps.

use std::collections::BTreeMap;

use smsfleet::model::lane::mix;
use smsfleet::model::time::Timestamp;
use smsfleet::ports::control::Cas;
use smsfleet::ports::documents::Shelf;
use smsfleet::ports::journal::{Direction, Entry, Place, Stream};

use super::fixture::over_all;

#[test]
fn a_document_is_there_at_once_and_after_a_restart_and_only_on_its_shelf() {
    over_all(async |subject| {
        let documents = subject.stores().documents;
        assert_eq!(documents.insert(Shelf::ApiKey, "a", "1").await, Ok(Cas::Applied));
        assert_eq!(documents.insert(Shelf::ApiKey, "a", "2").await, Ok(Cas::Refused));
        documents.put(Shelf::ApiKey, "ab", "3").await.expect("it is stored");
        documents.put(Shelf::ApiKey, "b", "4").await.expect("it is stored");
        documents.put(Shelf::Rate, "a", "5").await.expect("it is stored");
        documents.put(Shelf::Rate, "a", "6").await.expect("it is replaced");
        documents.put(Shelf::ApiKey, "c", "7").await.expect("it is stored");
        documents.delete(Shelf::ApiKey, "c").await.expect("it is removed");
        documents.delete(Shelf::ApiKey, "c").await.expect("removing nothing is harmless");
        let subject = subject.restarted().await;
        let documents = subject.stores().documents;
        assert_eq!(documents.get(Shelf::ApiKey, "a").await, Ok(Some("1".into())));
        assert_eq!(documents.get(Shelf::ApiKey, "c").await, Ok(None));
        assert_eq!(documents.get(Shelf::Rate, "a").await, Ok(Some("6".into())));
        let names = async |prefix: &str, behind: Option<&str>, limit: usize| -> Vec<String> {
            let listed = documents.list(Shelf::ApiKey, prefix, behind, limit).await.expect("a list");
            listed.into_iter().map(|document| document.name).collect()
        };
        assert_eq!(names("", None, 10).await, ["a", "ab", "b"]);
        assert_eq!(names("a", None, 10).await, ["a", "ab"]);
        assert_eq!(names("", Some("a"), 1).await, ["ab"]);
        assert_eq!(names("b", Some("a"), 5).await, ["b"], "a place before the beginning is the beginning");
        assert_eq!(names("a", Some("b"), 5).await, [""; 0], "a place behind the end is the end");
        assert_eq!(names("", None, 0).await, [""; 0]);
    });
}

fn entry(scope: &str, at: i64, id: u64, body: &str) -> Entry {
    Entry { place: Place { scope: scope.into(), at: Timestamp(at), id }, body: body.into() }
}

#[test]
fn a_journal_is_read_from_both_ends_in_pages() {
    over_all(async |subject| {
        let journal = subject.stores().journal;
        let entries = vec![entry("b/", 5, 1, "e"), entry("a/", 7, 0, "c"), entry("a/", 3, 2, "b"), entry("a/", 3, 1, "a")];
        assert_eq!(journal.append(Stream::Inbox, entries).await, Ok(vec![true; 4]));
        let again = vec![entry("a/", 3, 1, "another"), entry("a/b/", -4, 9, "d")];
        assert_eq!(journal.append(Stream::Inbox, again).await, Ok(vec![false, true]));
        journal.append(Stream::Click, vec![entry("a/", 1, 1, "x")]).await.expect("another stream");
        let subject = subject.restarted().await;
        let journal = subject.stores().journal;
        for page in 1..6 {
            for (within, expected) in [("", "abcde"), ("a/", "abcd"), ("b", "e"), ("c", "")] {
                for direction in [Direction::Forward, Direction::Backward] {
                    let (mut bodies, mut behind) = (String::new(), None);
                    loop {
                        let listed = journal.list(Stream::Inbox, within, behind.as_ref(), page, direction).await.expect("a page");
                        assert!(listed.len() <= page);
                        let Some(last) = listed.last() else { break };
                        behind = Some(last.place.clone());
                        bodies.extend(listed.into_iter().map(|entry| entry.body));
                    }
                    let turned: String = if direction == Direction::Backward { bodies.chars().rev().collect() } else { bodies };
                    assert_eq!(turned, expected, "{within:?} by {page}, {direction:?}");
                }
            }
        }
    });
}

#[test]
fn old_entries_go_from_every_scope_and_new_ones_stay() {
    over_all(async |subject| {
        let journal = subject.stores().journal;
        let scopes = ["a/", "a/b/", "b/", "long/1/", "long/2/"];
        let all = scopes.iter().flat_map(|scope| (0..1_500).map(move |at| entry(scope, at, 0, "")));
        journal.append(Stream::Click, all.collect()).await.expect("they are stored");
        journal.append(Stream::Audit, vec![entry("a/", 0, 0, "")]).await.expect("another stream");
        journal.remove(Stream::Click, vec![entry("b/", 1_499, 0, "").place]).await.expect("it is removed");
        journal.drop_before(Stream::Click, Timestamp(1_490)).await.expect("old ones go");
        for scope in scopes {
            let left = journal.list(Stream::Click, scope, None, 100, Direction::Forward).await.expect("a list");
            let times: Vec<i64> = left.iter().filter(|entry| entry.place.scope == scope).map(|entry| entry.place.at.0).collect();
            let end = if scope == "b/" { 1_499 } else { 1_500 };
            assert_eq!(times, (1_490..end).collect::<Vec<_>>(), "{scope}");
        }
        let audit = journal.list(Stream::Audit, "", None, 10, Direction::Forward).await.expect("a list");
        assert_eq!(audit.len(), 1);
    });
}

#[test]
fn scopes_that_hold_entries_are_found_and_those_that_were_told_behind_their_place() {
    over_all(async |subject| {
        let journal = subject.stores().journal;
        let scopes = ["a/", "wh/1/", "wh/2/", "wh/3/", "wi/1/"];
        let all = scopes.iter().flat_map(|scope| (0..3).map(move |at| entry(scope, at, 7, "{}")));
        journal.append(Stream::Outbox, all.collect()).await.expect("they are stored");
        let place = |scope: &str, at| entry(scope, at, 7, "").place;
        let waiting = async |told: &[Place], limit| {
            let told: BTreeMap<String, Place> = told.iter().map(|place| (place.scope.clone(), place.clone())).collect();
            journal.waiting(Stream::Outbox, "wh/", &told, limit).await.expect("they are found")
        };
        let firsts = ["wh/1/", "wh/2/", "wh/3/"].map(|scope| place(scope, 0));
        assert_eq!(waiting(&[], 9).await, firsts);
        assert_eq!(waiting(&[], 2).await, firsts[..2]);
        // What was told is removed; places of scopes that are not asked for, or hold nothing, change nothing.
        journal.remove(Stream::Outbox, vec![place("wh/2/", 0), place("wh/3/", 0)]).await.expect("they are removed");
        journal.remove(Stream::Outbox, vec![place("wh/3/", 1), place("wh/3/", 2)]).await.expect("they are removed");
        let told = [place("a/", 1), place("wh/2/", 0), place("wh/3/", 2), place("wh/4/", 9)];
        assert_eq!(waiting(&told, 9).await, [place("wh/1/", 0), place("wh/2/", 1)]);
        journal.append(Stream::Outbox, vec![entry("wh/3/", 3, 7, "{}"), entry("wh/3/0/", 0, 7, "{}")]).await.expect("stored");
        let found = [place("wh/1/", 0), place("wh/2/", 1), place("wh/3/", 3), place("wh/3/0/", 0)];
        assert_eq!(waiting(&told, 9).await, found);
    });
}

#[test]
fn a_journal_of_many_scopes_reads_as_one_sorted_list() {
    over_all(async |subject| {
        let journal = subject.stores().journal;
        // Scopes of one letter and longer ones that begin with them, and times and ids that come again.
        let scope = |n: u64| format!("{}/", &["a", "a/b", "ä", "b", "b0", "字", "z/y/x"][(mix(n) % 7) as usize]);
        let all: Vec<Entry> =
            (0..400).map(|n| entry(&scope(n), (mix(n + 1_000) % 9) as i64 - 4, mix(n + 2_000) % 5, &n.to_string())).collect();
        let mut model: BTreeMap<Place, String> = BTreeMap::new();
        for some in all.chunks(90) {
            let free: Vec<bool> = some
                .iter()
                .map(|entry| {
                    let is_free = !model.contains_key(&entry.place);
                    model.entry(entry.place.clone()).or_insert_with(|| entry.body.clone());
                    is_free
                })
                .collect();
            assert_eq!(journal.append(Stream::Outbox, some.to_vec()).await, Ok(free));
        }
        for (within, page) in [("", 7), ("", 300), ("a", 11), ("a/", 3), ("b", 1), ("ä", 50), ("字/", 4), ("y", 5)] {
            let expected: Vec<Entry> = model
                .iter()
                .filter(|(place, _)| place.scope.starts_with(within))
                .map(|(place, body)| Entry { place: place.clone(), body: body.clone() })
                .collect();
            for direction in [Direction::Forward, Direction::Backward] {
                let mut listed: Vec<Entry> = Vec::new();
                loop {
                    let behind = listed.last().map(|entry| entry.place.clone());
                    let more = journal.list(Stream::Outbox, within, behind.as_ref(), page, direction).await.expect("a page");
                    if more.is_empty() {
                        break;
                    }
                    listed.extend(more);
                }
                if direction == Direction::Backward {
                    listed.reverse();
                }
                assert_eq!(listed, expected, "{within:?} by {page}, {direction:?}");
            }
        }
        let (gone, kept): (Vec<Place>, Vec<Place>) = model.into_keys().partition(|place| place.id == 3);
        journal.remove(Stream::Outbox, gone).await.expect("they are removed");
        let left = journal.list(Stream::Outbox, "", None, 1_000, Direction::Forward).await.expect("a list");
        assert_eq!(left.into_iter().map(|entry| entry.place).collect::<Vec<_>>(), kept);
    });
}

#[test]
fn documents_of_many_names_read_as_one_sorted_list() {
    over_all(async |subject| {
        let documents = subject.stores().documents;
        let mut names: Vec<String> =
            (0..60).map(|n| format!("{}{}", &["a", "ab", "ä", "b/"][n % 4], mix(n as u64) % 40)).collect();
        for name in &names {
            documents.put(Shelf::Answer, name, name).await.expect("it is put");
        }
        names.sort_unstable();
        names.dedup();
        for (prefix, page) in [("", 7), ("", 100), ("a", 4), ("ab", 3), ("ä", 1), ("b/", 2), ("c", 5)] {
            let mut listed: Vec<String> = Vec::new();
            loop {
                let behind = listed.last().cloned();
                let more = documents.list(Shelf::Answer, prefix, behind.as_deref(), page).await.expect("a page");
                if more.is_empty() {
                    break;
                }
                assert!(more.len() <= page && more.iter().all(|document| document.body == document.name));
                listed.extend(more.into_iter().map(|document| document.name));
            }
            let expected: Vec<&String> = names.iter().filter(|name| name.starts_with(prefix)).collect();
            assert_eq!(listed.iter().collect::<Vec<_>>(), expected, "{prefix:?} by {page}");
        }
    });
}
