//! Sources: files as people really have them.
