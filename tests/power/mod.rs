//! Power: the embedded store over a disk that forgets what was not synced, whenever its power goes.
//!
//! [`disk`] is that disk: what was written since the last sync survives a cut by sectors, in any order, in part or not at all.
//! [`store`] drives the ports over it and holds what is there afterwards against what was answered before. [`batch`] runs whole
//! batches through the real roles with several cuts each. [`files`] is about what lies beside the database.
//!
//! Each also runs over a disk that lies about its syncs, and must notice: a proof that cannot fail proves nothing.

mod batch;
mod disk;
mod files;
mod store;
