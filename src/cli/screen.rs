//! Progress for people: bars on a terminal, a line every few seconds and at each step elsewhere, nothing for programs.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::render::grouped;
use crate::statistics::Progress;

/// The pause between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where progress is shown.
pub struct Screen {
    bars: Option<Bars>,
    quiet: bool,
    last_line: Option<Instant>,
    last_text: String,
    last_standing: String,
}

struct Bars {
    all: MultiProgress,
    preparing: ProgressBar,
    sealing: ProgressBar,
    sending: ProgressBar,
    receipts: ProgressBar,
}

impl Screen {
    /// A screen on standard error; `quiet` shows nothing at all.
    pub fn new(quiet: bool, color: bool) -> Screen {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bars = (terminal && !quiet).then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            let bar = |name: &'static str| {
                let paint = if color { "{bar:36.cyan/blue}" } else { "{bar:36}" };
                let template = format!("{{prefix:>10}} {paint} {{human_pos:>11}}/{{human_len:<11}} {{msg}}");
                let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
                all.add(ProgressBar::new(0).with_style(style).with_prefix(name))
            };
            let (preparing, sealing, sending, receipts) = (bar("preparing"), bar("sealing"), bar("sending"), bar("receipts"));
            Bars { all, preparing, sealing, sending, receipts }
        });
        Screen { bars, quiet, last_line: None, last_text: String::new(), last_standing: String::new() }
    }

    /// Shows how far a batch is.
    pub fn update(&mut self, progress: &Progress) {
        if let Some(bars) = &self.bars {
            let set = |bar: &ProgressBar, at: u64, of: u64, text: String| {
                bar.set_length(of);
                bar.set_position(at.min(of));
                bar.set_message(text);
            };
            set(&bars.preparing, progress.prepared, progress.records, String::new());
            set(&bars.sealing, progress.lanes_sealed, progress.lanes, String::new());
            set(&bars.sending, progress.ended, progress.recipients, sending_note(progress));
            let delivered = match progress.delivered {
                0 => String::new(),
                n => format!("{} delivered", grouped(n)),
            };
            set(&bars.receipts, progress.receipts, progress.accepted.max(progress.receipts), delivered);
            return;
        }
        // Before the list was looked at there is nothing to say; a step that begins or ends is always said.
        let due = self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY) || self.last_standing != progress.standing;
        if self.quiet || !due || progress.records == 0 {
            return;
        }
        self.last_standing.clone_from(&progress.standing);
        let text = line(progress);
        self.last_line = Some(Instant::now());
        if text != self.last_text {
            eprintln!("{text}");
            self.last_text = text;
        }
    }

    /// Shows a sentence above the bars.
    pub fn say(&self, text: &str) {
        match &self.bars {
            // A terminal that went away is no reason to stop sending.
            Some(bars) => drop(bars.all.println(text)),
            None if self.quiet => {}
            None => eprintln!("{text}"),
        }
    }

    /// Leaves the bars as they are and ends.
    pub fn finish(self) {
        if let Some(bars) = self.bars {
            for bar in [&bars.preparing, &bars.sealing, &bars.sending, &bars.receipts] {
                bar.abandon();
            }
        }
    }
}

fn sending_note(progress: &Progress) -> String {
    let mut notes = vec![];
    if progress.in_flight > 0 {
        notes.push(format!("{} in flight", grouped(progress.in_flight)));
    }
    for (n, word) in [(progress.failed, "failed"), (progress.uncertain, "uncertain")] {
        if n > 0 {
            notes.push(format!("{} {word}", grouped(n)));
        }
    }
    if let Some(reason) = &progress.reason {
        notes.push(reason.clone());
    } else if progress.standing.ends_with("PAUSED") {
        notes.push("paused".into());
    }
    notes.join(", ")
}

/// One line of progress.
pub fn line(progress: &Progress) -> String {
    let note = sending_note(progress);
    let counts = if progress.sealed {
        let (ended, recipients) = (grouped(progress.ended), grouped(progress.recipients));
        format!(
            "sent {ended} of {recipients}, receipts {} ({} delivered)",
            grouped(progress.receipts),
            grouped(progress.delivered)
        )
    } else {
        let (prepared, records) = (grouped(progress.prepared), grouped(progress.records));
        format!("prepared {prepared} of {records}, lanes sealed {} of {}", progress.lanes_sealed, progress.lanes)
    };
    format!("{}: {counts}{}{note}", progress.standing, if note.is_empty() { "" } else { ", " })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is() {
        let mut progress =
            Progress { standing: "PREPARATION RUNNING".into(), records: 1_000, prepared: 500, ..Progress::default() };
        assert_eq!(line(&progress), "PREPARATION RUNNING: prepared 500 of 1,000, lanes sealed 0 of 0");
        (progress.sealed, progress.recipients, progress.ended, progress.in_flight) = (true, 900, 400, 20);
        (progress.receipts, progress.delivered, progress.failed) = (300, 290, 3);
        progress.standing = "DELIVERY RUNNING".into();
        assert_eq!(line(&progress), "DELIVERY RUNNING: sent 400 of 900, receipts 300 (290 delivered), 20 in flight, 3 failed");
    }
}
