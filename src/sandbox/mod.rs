//! How a process gives rights up. Mechanism only: who gives up what stands in the role.
#![forbid(unsafe_code)]
