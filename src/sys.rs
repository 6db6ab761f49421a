//! The only unsafe code of the crate: system calls that no safe crate wraps. Everything here has a safe face.
#![allow(unsafe_code)]
