//! A batch's row: what a pause, a seal and a leader that knows an old row do to it.

use super::*;

/// A batch for tests of this and other modules.
pub(crate) fn batch() -> SmsBatch {
    SmsBatch {
        batch_id: BatchId(7),
        tenant: "t".into(),
        auto_trigger: true,
        ext_code: "007".into(),
        ..SmsBatch::new("list.csv", "Hello {{name}}", "smpp")
    }
}

fn row() -> BatchRow {
    BatchRow::created(batch(), String::new(), Timestamp(0))
}

#[test]
fn a_pause_makes_every_token_out_of_date() {
    let now = Timestamp(1);
    let running = row().command(Command::EntryProcess, now).and_then(|r| r.after(StepEvent::Start, None, now)).expect("running");
    let paused = running.command(Command::Pause, now).expect("paused");
    assert!(paused.task_number > running.task_number);
    let resumed = paused.command(Command::Resume, now).and_then(|r| r.after(StepEvent::Start, None, now)).expect("resumed");
    assert!(resumed.task_number > paused.task_number);
}

#[test]
fn nobody_resumes_what_nobody_started() {
    assert_eq!(row().can(Command::Pause), Err(Refusal::NotFrom));
    assert_eq!(row().can(Command::Resume), Err(Refusal::NotFrom));
    assert_eq!(row().can(Command::Start), Err(Refusal::NotFrom));
}

#[test]
fn a_batch_that_triggers_itself_is_ready_after_the_seal() {
    let now = Timestamp(1);
    let running = row().command(Command::EntryProcess, now).and_then(|r| r.after(StepEvent::Start, None, now)).expect("running");
    let sealed = running.after_seal(SealedPlan::default(), now).expect("sealed");
    assert_eq!((sealed.current_step, sealed.delivery.state), (CurrentStep::Delivery, StepState::Ready));
    let paused = running.command(Command::Pause, now).expect("paused");
    assert_eq!(paused.after_seal(SealedPlan::default(), now), Err(Refusal::NotFrom), "a pause is not undone by the seal");
    let mut held = running;
    held.batch.auto_trigger = false;
    let sealed = held.after_seal(SealedPlan::default(), now).expect("sealed");
    assert_eq!(sealed.delivery.state, StepState::Initial);
    assert!(sealed.can_start() && !sealed.can_pause() && sealed.can_change_provider());
}

#[test]
fn the_link_is_found_in_every_spelling() {
    for (content, expected) in
        [("go to {{ url }}", true), ("go to ${url}", true), ("go to https://x.example/a", true), ("no", false)]
    {
        let batch = SmsBatch { url: Some("https://x.example/a".into()), content: content.into(), ..batch() };
        assert_eq!(batch.contains_url(), expected, "{content}");
    }
}

#[test]
fn a_leader_that_seals_late_ends_no_delivery() {
    let now = Timestamp(1);
    let mut running =
        row().command(Command::EntryProcess, now).and_then(|r| r.after(StepEvent::Start, None, now)).expect("running");
    running.batch.auto_trigger = false;
    let sealed = running.after_seal(SealedPlan::default(), now).expect("sealed");
    let sent = sealed.command(Command::Start, now).and_then(|r| r.after(StepEvent::Start, None, now)).expect("it is sent");
    let paused = sent.command(Command::Pause, now).expect("paused");
    for late in [&sealed, &sent, &paused] {
        assert_eq!(late.after_seal(SealedPlan::default(), now), Err(Refusal::Already));
        for event in [StepEvent::Start, StepEvent::Succeed, StepEvent::Fail] {
            assert_eq!(late.after_preparing(event, None, now), Err(Refusal::Already), "{event:?}");
        }
    }
}
