//! What goes wrong in a run, and when: one draw after the other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use smsfleet::model::batch::Command;
use smsfleet::model::id::Msisdn;
use smsfleet::model::limits::SEND_BY;
use smsfleet::ports::clock::Chance;

use super::run::Run;
use super::source::{VERSIONS, records};

/// What happens in a calm run: processes start and stop, the queue and leases are lost, partitions move.
const CALM: [u64; 8] = [5, 6, 7, 8, 17, 18, 26, 27];

impl Run {
    /// Everything goes wrong for a while. What arrives is looked at after every step.
    pub(super) async fn troubles(&mut self) -> Result<(), String> {
        let until = tokio::time::Instant::now() + Duration::from_secs(70);
        while tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(self.chance.next() % 2_400)).await;
            self.start_what_waits().await?;
            self.trouble().await?;
            self.nothing_wrong()?;
        }
        Ok(())
    }

    async fn trouble(&mut self) -> Result<(), String> {
        let now = tokio::time::Instant::now();
        for (_, process) in self.frozen.extract_if(.., |(until, _)| *until <= now).collect::<Vec<_>>() {
            let late = [0, 20, 300, 2_000][(self.chance.next() % 4) as usize];
            process.thaw(&self.shared, Duration::from_millis(late));
            self.tell("a frozen process wakes".into());
            self.processes.push(process);
        }
        let draw = self.chance.next();
        let which = |n: usize| (draw >> 32) as usize % n.max(1);
        let what = draw % 30;
        if self.is_calm && !CALM.contains(&what) {
            return Ok(());
        }
        match what {
            0..3 if !self.processes.is_empty() => {
                let process = self.processes.remove(which(self.processes.len()));
                self.tell("crash".into());
                self.fire("crash");
                process.crash(&self.shared);
            }
            3 | 4 if !self.processes.is_empty() => {
                self.until_somebody_is_sent_to(draw >> 50).await;
                let process = self.processes.remove(which(self.processes.len()));
                self.tell("freeze".into());
                self.fire("freeze");
                // Others have its partitions at once, soon, or when it has woken long since.
                let session = [0, 3_000, 10_000][(draw >> 51) as usize % 3];
                process.freeze(&self.shared, Duration::from_millis(session));
                self.frozen.push((now + Duration::from_millis(500 + draw % 40_000), process));
            }
            5 | 6 if !self.processes.is_empty() => {
                let is_rolling = (draw >> 8).is_multiple_of(2);
                // Half of the rolling restarts meet a provider that takes its time: what was handed over before a lane moves is
                // answered to whoever gave it away.
                if is_rolling && (draw >> 24).is_multiple_of(2) {
                    self.tell("provider slow".into());
                    self.shared.network.slow_for(Duration::from_secs(6));
                }
                self.until_somebody_is_sent_to(draw >> 12).await;
                let process = self.processes.remove(which(self.processes.len()));
                if is_rolling {
                    // Whoever takes its place comes first, and lanes move.
                    self.tell("start".into());
                    self.start_process();
                    let most = if (draw >> 9).is_multiple_of(2) { 300 } else { 3_000 };
                    tokio::time::sleep(Duration::from_millis(20 + (draw >> 10) % most)).await;
                }
                self.tell("stop".into());
                self.fire("stop");
                process.stop(&self.shared).await;
            }
            7 => {
                self.until_somebody_is_sent_to(draw >> 8).await;
                let lost = self.shared.broker.lose_all();
                self.tell(format!("{lost} tokens lost"));
                if lost > 0 {
                    self.fire("queue lost");
                }
            }
            8 => {
                let held = self.shared.lease.flush();
                self.tell(format!("lease flushed, {held} of them held"));
                if held > 0 {
                    self.fire("lease flushed");
                }
            }
            9 | 10 => {
                let at_work = self.until_somebody_is_sent_to(draw >> 8).await;
                self.operate(Command::Pause, "pause", at_work.unwrap_or(which(self.batches.len()))).await;
            }
            11..14 => self.operate(Command::Resume, "resume", which(self.batches.len())).await,
            14 if (draw >> 8).is_multiple_of(3) => {
                // There are few: all of them wait for a bad moment.
                let at_work = self.until_somebody_is_sent_to(0).await;
                self.operate(Command::Cancel, "cancel", at_work.unwrap_or(which(self.batches.len()))).await;
            }
            15 => {
                let (_, batch) = &self.batches[which(self.batches.len())];
                let rows = records(&batch.table_name, VERSIONS[0]);
                let (number, _) = &rows[which(rows.len())];
                if let Some(digits) = number.strip_prefix('+').and_then(|digits| digits.parse().ok()) {
                    let number = Msisdn(digits);
                    self.shared.stores.suppressions.add(&[number]).await.map_err(|error| error.to_string())?;
                    let now = self.shared.clock.boot();
                    let mut known = self.shared.network.known();
                    known.suppressed.entry(number).or_insert(now);
                    known.ever_suppressed.insert(number);
                }
            }
            16 => {
                let full = !self.shared.full.load(Ordering::Relaxed);
                if full {
                    self.until_somebody_is_sent_to(draw >> 8).await;
                }
                self.shared.full.store(full, Ordering::Relaxed);
                self.tell(if full { "the disk is full" } else { "the disk has room" }.into());
            }
            // Whoever knows that a backup may be needed, or was, sends again more often.
            17..20 if self.backup.is_some() || self.shared.network.known().restored.is_some() => {
                self.retry(which(self.batches.len()), draw >> 8).await?;
            }
            20 | 21 => {
                let at_work = self.until_somebody_is_sent_to(draw >> 7).await;
                self.change_provider(at_work.unwrap_or(which(self.batches.len())), draw >> 8).await?;
            }
            22..26 => self.retry(which(self.batches.len()), draw >> 8).await?,
            26 | 27 => {
                let (of, bits) = (2 + (draw >> 8) % 4, draw >> 16);
                let taken = self.shared.broker.take_away(|partition| (u64::from(partition) ^ bits).is_multiple_of(of));
                self.tell(format!("{taken} partitions are taken away"));
                if taken > 0 {
                    self.fire("rebalance of some");
                }
            }
            28 if (draw >> 8).is_multiple_of(8) => self.change_lists(which(self.batches.len()), draw >> 11).await,
            29 if (draw >> 8).is_multiple_of(2) => self.backup_or_restore(which(self.batches.len()), draw >> 9).await?,
            _ if self.processes.len() < self.most_processes() => {
                self.tell("start".into());
                self.start_process();
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) async fn operate(&mut self, command: Command, word: &'static str, which: usize) {
        let (id, batch) = self.batches[which].clone();
        let now = self.shared.clock.now();
        if command != Command::Pause {
            self.shared.network.known().operators.goes_on(id, now);
        }
        if command == Command::Cancel {
            self.attempted.insert(id);
        }
        // Refused where the state does not allow it, as for anybody.
        if let Some(answer) = self.give(id, command).await {
            let now = self.shared.clock.now();
            let stands = self.stands(id, &answer);
            if let Some(receipt) = answer.pause.filter(|_| stands) {
                let people = records(&batch.table_name, VERSIONS[0]).len() as u64;
                let mut known = self.shared.network.known();
                // More than a window's time, or than there are people, is no promise.
                if receipt.until > now.plus(SEND_BY) || receipt.may_still_go > people {
                    known.wrong.push(format!("at {now:?} the pause of {people} people promised nothing: {receipt:?}"));
                }
                known.operators.paused(id, now, receipt.until, receipt.may_still_go);
            }
            if command == Command::Cancel {
                self.canceled.entry(id).or_insert(self.shared.clock.boot());
                // What was declared before may still go, and nothing else.
                let ledgers = self.shared.stores.ledgers.list(id).await.unwrap_or_default();
                let open = ledgers.iter().map(|(_, ledger)| ledger.row.in_flight()).sum();
                self.shared.network.known().operators.paused(id, now, now.plus(SEND_BY), open);
            }
            self.fire(word);
            self.tell(format!("{word} {id}"));
        }
    }

    /// Half of the time a command waits for a bad moment: when messages are on their way. Gives back to whose people.
    async fn until_somebody_is_sent_to(&self, draw: u64) -> Option<usize> {
        let before = self.shared.network.known().arrivals;
        for _ in 0..if draw.is_multiple_of(2) { 60 } else { 0 } {
            let (arrivals, last) = {
                let known = self.shared.network.known();
                (known.arrivals, known.last.clone())
            };
            if arrivals != before {
                return self.batches.iter().position(|(id, _)| last.starts_with(&id.to_string()));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        None
    }

    /// Somebody changes the lists under the batches; half of the time just when one of them is paused, and then it goes on.
    async fn change_lists(&mut self, which: usize, draw: u64) {
        let between = draw.is_multiple_of(2);
        if between {
            self.operate(Command::Pause, "pause", which).await;
            tokio::time::sleep(Duration::from_millis((draw >> 1) % 2_000)).await;
        }
        self.shared.changed.store(true, Ordering::Relaxed);
        self.tell("the lists of recipients are changed".into());
        if between {
            self.operate(Command::Resume, "resume", which).await;
        }
    }
}
