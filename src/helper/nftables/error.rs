//! Why nftables did not do what we asked, and what helps. Helper.
//!
//! Never guesses: where an errno has several reasons, `exchange` finds out which it was.
#![forbid(unsafe_code)]

use std::io;

/// Why nftables did not do what we asked.
#[derive(Debug, thiserror::Error)]
pub enum NftablesError {
    /// No netlink socket.
    #[error("cannot open a netlink socket to netfilter: {0}; the kernel needs CONFIG_NETFILTER_NETLINK")]
    Socket(#[source] io::Error),
    /// EPERM.
    #[error(
        "cannot {step} in nftables: not permitted; the helper needs CAP_NET_ADMIN in this network namespace"
    )]
    NotPermitted {
        /// What was tried.
        step: &'static str,
    },
    /// The kernel lacks nf_tables or a part of it.
    #[error("cannot {step} in nftables: {source}; the kernel needs {feature}")]
    Unsupported {
        /// What was tried.
        step: &'static str,
        /// Kernel configuration or module.
        feature: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody deleted our table, as `nft flush ruleset` does, or put another in its place, or took rules out of it, or put
    /// a set of another kind into it; or it could not be known whether anybody had.
    #[error(
        "cannot {step} in nftables: the table inet portsentry is not as it was made; it must be installed again"
    )]
    TableGone {
        /// What was tried.
        step: &'static str,
    },
    /// The set holds as many elements as it may: see [`capacity`](crate::helper::ruleset::capacity).
    #[error("cannot {step} in nftables: the set is full; lift blocks or shorten BLOCK_TIME")]
    Full {
        /// What was tried.
        step: &'static str,
    },
    /// Anything else.
    #[error("cannot {step} in nftables: {source}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl NftablesError {
    pub(super) fn new(step: &'static str, source: io::Error) -> NftablesError {
        match source.raw_os_error() {
            Some(libc::EPERM) => NftablesError::NotPermitted { step },
            Some(libc::ENFILE) => NftablesError::Full { step },
            Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => {
                NftablesError::Unsupported { step, source, feature: "nf_tables with CONFIG_NF_TABLES_INET" }
            }
            _ => NftablesError::Refused { step, source },
        }
    }

    /// The errno behind it, for [`Outcome::Failed`](crate::protocol::Outcome::Failed); EIO where there is none.
    pub fn errno(&self) -> i32 {
        match self {
            NftablesError::NotPermitted { .. } => libc::EPERM,
            NftablesError::TableGone { .. } => libc::ENOENT,
            NftablesError::Full { .. } => libc::ENFILE,
            NftablesError::Socket(source)
            | NftablesError::Unsupported { source, .. }
            | NftablesError::Refused { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

/// Short for results here.
pub type Result<T> = std::result::Result<T, NftablesError>;
