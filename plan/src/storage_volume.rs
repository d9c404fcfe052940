//! What to do about one StorageVolume: who uses it and where it lies (`binding`), and what its file needs (`file`).  Pure.

pub mod binding;
