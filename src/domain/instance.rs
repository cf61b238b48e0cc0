//! One machine of the inventory.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::InstanceId;

/// Which of an instance's addresses to connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AddressKind {
    /// The private IPv4 address.
    Private,
    /// The public IPv4 address.
    Public,
    /// The IPv6 address.
    Ipv6,
    /// The DNS name.
    Dns,
}

/// The addresses of an instance, as its inventory knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Private IPv4 address; an inventory file's plain `address` stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private: Option<String>,
    /// Public IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
    /// IPv6 address, without brackets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// DNS name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
}

impl Addresses {
    /// The address of the `wanted` kind alone; all of them where none is.
    #[must_use]
    pub fn only(self, wanted: Option<AddressKind>) -> Self {
        match wanted {
            None => self,
            Some(AddressKind::Private) => Self { private: self.private, ..Self::default() },
            Some(AddressKind::Public) => Self { public: self.public, ..Self::default() },
            Some(AddressKind::Ipv6) => Self { ipv6: self.ipv6, ..Self::default() },
            Some(AddressKind::Dns) => Self { dns: self.dns, ..Self::default() },
        }
    }
}

/// Whether a machine can be connected to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// It runs. The only state that a selector matches.
    #[default]
    Running,
    /// It is being started.
    Pending,
    /// It is stopped or being stopped.
    Stopped,
    /// It is gone or going.
    Terminated,
}

/// One machine of the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// What the inventory calls it.
    pub id: InstanceId,
    /// The AWS account, or `local` for an inventory file, or `host` for `-w`.
    pub account: String,
    /// The AWS region, or `local`.
    pub region: String,
    /// The availability zone, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// When it was launched, or last started, where the inventory tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_at: Option<Timestamp>,
    /// Where it can be reached.
    pub addresses: Addresses,
    /// The SSH port, where the inventory knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The login user, where the inventory knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Whether it runs.
    #[serde(default)]
    pub state: InstanceState,
}

impl Instance {
    /// The `Name` tag, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.tags.get("Name").map(String::as_str)
    }

    /// The address to connect to and its kind: the wanted kind, or by default the private, else the public address,
    /// else IPv6, else the DNS name.
    pub fn address(&self, wanted: Option<AddressKind>) -> Option<(&str, AddressKind)> {
        let of = |kind| {
            let address = match kind {
                AddressKind::Private => &self.addresses.private,
                AddressKind::Public => &self.addresses.public,
                AddressKind::Ipv6 => &self.addresses.ipv6,
                AddressKind::Dns => &self.addresses.dns,
            };
            address.as_deref().map(|address| (address, kind))
        };
        match wanted {
            Some(kind) => of(kind),
            None => of(AddressKind::Private)
                .or_else(|| of(AddressKind::Public))
                .or_else(|| of(AddressKind::Ipv6))
                .or_else(|| of(AddressKind::Dns)),
        }
    }
}
