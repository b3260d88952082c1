//! Where an agent may connect to beside its providers.
//!
//! In: the destination of a connection that is not a provider's, the name in its first bytes, if there is one, and the
//! names for which Guard's DNS gave the agent this address. Out: whether it may pass, and whether to its own destination
//! or to where a name leads. On failure: refused, with the rule that says so.
//!
//! The order is fixed: `deny`, then `allow`, then the built-in list of resolvers, then `private`, then `default`. A name
//! is what the client claims, or what a resolver of the client's choice did: it is believed when it is a reason to
//! refuse; when it is the reason to let a connection pass, the connection goes to where the host's own resolver says
//! that the name leads, and not to where the client was going.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub mod rule;

use rule::Rule;

use super::resolvers;

/// `agent.egress`. The default is that of an agent without the table.
#[derive(Debug, Clone, Default)]
pub struct Egress {
    /// What is on neither list may pass.
    pub others: Others,
    /// Refused, whatever else is written.
    pub deny: Vec<Rule>,
    /// Allowed, unless it is on `deny` too.
    pub allow: Vec<Rule>,
    /// Loopback of the agent's own network namespace.
    pub loopback: Loopback,
    /// Private networks; `None` when the key is not written.
    pub private: Option<Private>,
    /// Connections from outside to the agent.
    pub inbound: Inbound,
}

/// `egress.default`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Others {
    /// They pass.
    #[default]
    Allow,
    /// They are refused.
    Deny,
}

/// `egress.loopback`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Loopback {
    /// The agent's own is left alone.
    #[default]
    Own,
    /// The agent may not use it.
    Deny,
}

/// `egress.private`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Private {
    /// Like any other address, metadata services among them.
    Allow,
    /// Refused unless `allow` lists them by address.
    Deny,
}

/// `egress.inbound`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Inbound {
    /// The agent may serve others.
    #[default]
    Allow,
    /// It may not.
    Deny,
}

/// Where a connection that may pass is dialled to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passage {
    /// Where the client was going.
    Original,
    /// Where this name leads, because the name is why it may pass.
    Named(Box<str>),
}

/// A connection that may not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which kind of rule.
    pub cause: Cause,
    /// The rule, as it is written or could be.
    pub rule: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule)
    }
}

/// Why a connection may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// `deny` lists it.
    Listed,
    /// `default` is `deny`, and `allow` does not list it.
    Unlisted,
    /// Its address is private, or a metadata service's.
    Private,
    /// It is a DNS resolver over TLS or HTTPS.
    Resolver,
    /// Its name was its reason to pass, and leads nowhere.
    Unresolved,
}

impl Cause {
    /// Metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Unlisted => "unlisted",
            Self::Private => "private",
            Self::Resolver => "resolver",
            Self::Unresolved => "unresolved",
        }
    }
}

impl Egress {
    /// Whether a connection to this destination, with this name, may pass. `looked_up` are the names (in lower case) for
    /// which the agent was given the address.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(
        &self,
        destination: SocketAddr,
        name: Option<&str>,
        looked_up: &[Box<str>],
    ) -> Result<Passage, Refused> {
        let name = name.and_then(normal);
        let name = name.as_deref();
        let port = destination.port();
        self.not_denied(destination, name)?;
        // The address of a denied name, or of a resolver's, is refused under no name, and dialled by name under another.
        let denied = self.denied_of(looked_up, port);
        if let (Some((rule, denied)), None) = (denied, name) {
            return Err(listed_by_look_up(rule, denied));
        }
        let resolver = looked_up.iter().find(|name| resolvers::is_name(name));
        let must_be_named = denied.is_some() || resolver.is_some();
        let passes = |name: Option<&str>| match name {
            Some(name) if must_be_named => Passage::Named(name.into()),
            _ => Passage::Original,
        };
        if self.lists_address(destination) {
            return Ok(passes(name));
        }
        let lists = |name: &str| self.allow.iter().any(|rule| rule.covers_name(name, port));
        let reason = match name {
            Some(name) => Some(name).filter(|name| lists(name)),
            None => looked_up.iter().map(|name| &**name).find(|name| lists(name)),
        };
        if let Some(reason) = reason {
            return Ok(Passage::Named(reason.into()));
        }
        let name_or_look_up = name.or(resolver.map(|name| &**name));
        if let Some(what) = resolvers::find(destination, name_or_look_up) {
            return Err(resolver_refused(&what));
        }
        self.judge_private(destination)?;
        match self.others {
            Others::Allow => Ok(passes(name)),
            Others::Deny => Err(Refused {
                cause: Cause::Unlisted,
                rule: "`egress.default` is \"deny\", and `egress.allow` does not list it".to_owned(),
            }),
        }
    }

    /// Whether an address to which this name (in lower case) leads may be dialled: a name is no way around the rules for
    /// addresses, and its owner can point it anywhere.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge_resolved(&self, name: &str, address: SocketAddr) -> Result<(), Refused> {
        self.not_denied(address, None)?;
        if self.lists_address(address) {
            return Ok(());
        }
        // A resolver's own name was judged before.
        if !resolvers::is_name(name)
            && let Some(what) = resolvers::find(address, None)
        {
            return Err(resolver_refused(&what));
        }
        self.judge_private(address)
    }

    fn not_denied(&self, destination: SocketAddr, name: Option<&str>) -> Result<(), Refused> {
        let covers = |rule: &&Rule| {
            rule.covers_address(destination)
                || name.is_some_and(|name| rule.covers_name(name, destination.port()))
        };
        match self.deny.iter().find(covers) {
            Some(rule) => Err(Refused {
                cause: Cause::Listed,
                rule: format!("`egress.deny` lists \"{rule}\""),
            }),
            None => Ok(()),
        }
    }

    /// The first of these names that `deny` lists, and by which rule.
    fn denied_of<'a>(&'a self, names: &'a [Box<str>], port: u16) -> Option<(&'a Rule, &'a str)> {
        let mut pairs = names
            .iter()
            .flat_map(|name| self.deny.iter().map(move |rule| (rule, &**name)));
        pairs.find(|(rule, name)| rule.covers_name(name, port))
    }

    fn lists_address(&self, destination: SocketAddr) -> bool {
        self.allow.iter().any(|rule| rule.covers_address(destination))
    }

    fn judge_private(&self, destination: SocketAddr) -> Result<(), Refused> {
        let ip = destination.ip().to_canonical();
        let refused = |rule: &str| {
            Err(Refused {
                cause: Cause::Private,
                rule: rule.to_owned(),
            })
        };
        let strict = match self.private {
            Some(private) => private == Private::Deny,
            None => self.others == Others::Deny,
        };
        if strict && is_private(ip) {
            refused("it is a private address, and `egress.allow` does not list it")
        } else if self.private.is_none() && is_metadata(ip) {
            refused("it is a metadata service of a cloud, and `egress.allow` does not list it")
        } else {
            Ok(())
        }
    }
}

fn resolver_refused(what: &str) -> Refused {
    Refused {
        cause: Cause::Resolver,
        rule: format!(
            "{what} is a DNS resolver over TLS or HTTPS, and `egress.allow` does not list it; use the system's resolver, \
             whose answers Guard reads"
        ),
    }
}

fn listed_by_look_up(rule: &Rule, name: &str) -> Refused {
    Refused {
        cause: Cause::Listed,
        rule: format!("`egress.deny` lists \"{rule}\", and this address was looked up as {name:?}"),
    }
}

/// A name as rules compare it; an address is no name.
fn normal(name: &str) -> Option<String> {
    let name = name.trim_end_matches('.');
    (!name.is_empty() && !super::addresses::is_address(name)).then(|| name.to_ascii_lowercase())
}

/// Networks that are nobody's on the Internet: private, shared (carrier) and link-local ones.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || v4.is_link_local() || (a == 100 && b & 0xc0 == 64) || a == 0
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            // Translated addresses (64:ff9b::/96) and 6to4 carry an IPv4 address that decides.
            let inner = match v6.segments() {
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some((high, low)),
                _ => None,
            };
            let inside = inner.is_some_and(|(high, low)| {
                is_private(IpAddr::V4((u32::from(high) << 16 | u32::from(low)).into()))
            });
            first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80 || first & 0xffc0 == 0xfec0 || inside
        }
    }
}

/// Where clouds hand credentials to whoever asks from the machine.
fn is_metadata(ip: IpAddr) -> bool {
    match ip {
        // All of link-local IPv4: clouds use several addresses of it.
        IpAddr::V4(v4) => {
            v4.is_link_local() || matches!(v4.octets(), [100, 100, 100, 200] | [168, 63, 129, 16])
        }
        IpAddr::V6(v6) => matches!(
            v6.segments(),
            [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
        ),
    }
}

#[cfg(test)]
mod tests;
