//! How rows are written: a version byte, then the row. Shared by every store adapter.
