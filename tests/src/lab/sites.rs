//! What stands where on the lab's internet.

use std::net::{AddrParseError, IpAddr, SocketAddr};

use anyhow::Result;

use super::Builder;
use crate::netns::{End, NetNs, join};
use crate::provider::Speaks;

/// Port of every server of the lab's internet.
const HTTPS: u16 = 443;

/// The sites that every lab has: what they speak, their names, and the last part of their addresses.
const USUAL: [(Speaks, &str, &str); 9] = [
    (Speaks::OpenAi, "api.openai.com", "203.0.113.10"),
    (Speaks::Anthropic, "api.anthropic.com", "203.0.113.20"),
    (Speaks::Site, "www.example.org", "203.0.113.30"),
    (
        Speaks::Gemini,
        "generativelanguage.googleapis.com",
        "203.0.113.40",
    ),
    (
        Speaks::Bedrock,
        "bedrock-runtime.us-east-1.amazonaws.com",
        "203.0.113.50",
    ),
    (Speaks::Cohere, "api.cohere.com", "203.0.113.60"),
    (Speaks::Mistral, "api.mistral.ai", "203.0.113.70"),
    (
        Speaks::Vertex,
        "us-central1-aiplatform.googleapis.com",
        "203.0.113.80",
    ),
    (Speaks::Ollama, "ollama.com", "203.0.113.90"),
];

/// Addresses that documentation may use, which some clients refuse to call; and what stands for them in a public lab.
const DOCUMENTATION: &str = "203.0.113.";
const PUBLIC: &str = "52.203.113.";

/// The relayed sites of a lab have addresses from here on.
const RELAYED: usize = 100;

/// One site.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) speaks: Speaks,
    pub(super) host: String,
    v4: String,
    v6: String,
}

impl Site {
    fn new(speaks: Speaks, host: &str, v4: &str, public: bool) -> Self {
        let last = v4.trim_start_matches(DOCUMENTATION);
        let v4 = if public {
            format!("{PUBLIC}{last}")
        } else {
            v4.to_owned()
        };
        Self {
            speaks,
            host: host.to_owned(),
            v4,
            v6: format!("2001:db8:203::{last}"),
        }
    }

    pub(super) fn addresses(&self) -> Result<Vec<SocketAddr>, AddrParseError> {
        let address = |text: &String| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, HTTPS));
        [&self.v4, &self.v6].into_iter().map(address).collect()
    }
}

/// Every site of a lab, the usual ones first.
pub(super) fn all(builder: &Builder) -> Vec<Site> {
    let usual = USUAL
        .iter()
        .map(|(speaks, host, v4)| Site::new(*speaks, host, v4, builder.public));
    let relayed = (RELAYED..).zip(&builder.relayed).map(|(last, (_, host))| {
        let v4 = format!("{DOCUMENTATION}{last}");
        Site::new(Speaks::Site, host, &v4, builder.public)
    });
    usual.chain(relayed).collect()
}

/// Names and IPv4 addresses of the usual sites.
pub(super) fn usual() -> impl Iterator<Item = (&'static str, &'static str)> {
    USUAL.into_iter().map(|(_, host, v4)| (host, v4))
}

/// The place among the usual sites of the one that speaks so.
pub(super) fn place(speaks: Speaks) -> usize {
    USUAL
        .iter()
        .position(|(one, ..)| *one == speaks)
        .unwrap_or_default()
}

/// The hosts file.
pub(super) fn hosts(sites: &[Site], ipv6: bool) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (number, site) in sites.iter().enumerate() {
        // A relayed site stands in the place of a usual one of the same name.
        if sites.iter().skip(number + 1).any(|other| other.host == site.host) {
            continue;
        }
        text += &format!("{} {}\n", if ipv6 { &site.v6 } else { &site.v4 }, site.host);
    }
    text
}

/// Connects the host with the internet, and gives every site its addresses there.
pub(super) fn connect(host: &NetNs, net: &NetNs, sites: &[Site]) -> Result<()> {
    join(
        End {
            namespace: host,
            device: "uplink",
            addresses: &["198.51.100.2/24", "2001:db8:1::2/64"],
        },
        End {
            namespace: net,
            device: "downlink",
            addresses: &["198.51.100.1/24", "2001:db8:1::1/64"],
        },
    )?;
    for site in sites {
        net.ip(&format!("address add {}/32 dev lo", site.v4))?;
        net.ip(&format!("address add {}/128 dev lo nodad", site.v6))?;
    }
    host.ip("route add default via 198.51.100.1")?;
    host.ip("-6 route add default via 2001:db8:1::1")
}
