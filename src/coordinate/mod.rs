//! The leader: one at a time, and its jobs.
//!
//! A coordinator takes the lease ([`leader`]) and, while it trusts it, runs the leader's jobs in rounds ([`scheduler`]):
//! planning sources ([`planning`]), following preparation ([`prepare_tracker`]) and delivery ([`delivery_tracker`]), steering
//! the store's write budget ([`throughput`]), pausing while the disk is full ([`store_guard`]), lending bind slots ([`slots`])
//! and letting go of old data ([`sweeper`]) and old uploads ([`uploads`]). Who is in the fleet is in [`members`]. Jobs of other
//! stages are handed in by the composer.
//!
//! Architecture invariant: the lease only keeps two leaders from wasting work. Every change a job makes is a compare-and-set
//! or harmless when done twice, so two leaders at once do no harm. A job is dropped where it stands when its term ends, which
//! is no more than a crash does: it is written so that the next run finishes what an earlier one left.

pub mod delivery_tracker;
pub mod leader;
pub mod mark;
pub mod members;
pub mod planning;
pub mod prepare_tracker;
pub mod recover;
pub mod scheduler;
pub mod slots;
pub mod store_guard;
pub mod sweeper;
pub mod throughput;
pub mod uploads;

pub use delivery_tracker::DeliveryStatusTracker;
pub use mark::Mark;
pub use members::Members;
pub use planning::Planning;
pub use prepare_tracker::PrepareStatusTracker;
pub use scheduler::JobScheduler;
pub use slots::BindSlots;
pub use uploads::UploadSweeper;

#[cfg(test)]
mod delivery_tests;
#[cfg(test)]
mod leading_tests;
#[cfg(test)]
mod planning_tests;
#[cfg(test)]
mod sweeper_tests;
