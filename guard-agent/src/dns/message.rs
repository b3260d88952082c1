//! DNS messages, as far as Guard reads and changes them.
//!
//! In: bytes. Out: a query with one question; an answer to it without the `ech` parameter and without HTTP/3 in its
//! service bindings (RFC 9460; RFC 9848 defines `ech`). On failure: what is not understood is not passed on. An answer in
//! which nothing has to change passes byte by byte, so that signatures and unknown types stay whole.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use simple_dns::rdata::{RData, SVCB, SVCParam};
use simple_dns::{CharacterString, Packet, ResourceRecord};

const HEADER: usize = 12;
const QR: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
/// What a client takes over UDP that does not say more.
const PLAIN: usize = 512;
const KEY_ALPN: u16 = 1;
const KEY_ECH: u16 = 5;

/// Errors that Guard itself answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rcode {
    /// The resolver failed.
    ServerFailure = 2,
    /// Guard does not answer this client, or not now.
    Refused = 5,
}

/// A query with one question.
#[derive(Debug, Clone)]
pub struct Query {
    bytes: Vec<u8>,
    id: u16,
    name: String,
    /// Where the question ends.
    question_end: usize,
    /// The largest answer that the client takes over UDP.
    room: usize,
}

/// An answer that may be passed on.
#[derive(Debug)]
pub struct Clean {
    /// The message, with the client's id.
    pub bytes: Vec<u8>,
    /// Something was taken out.
    pub stripped: bool,
    /// The addresses in it, and how long they hold.
    pub addresses: Vec<(IpAddr, Duration)>,
}

impl Query {
    /// Reads a standard query. None if it is not one, or could be read in two ways.
    pub fn read(bytes: Vec<u8>) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let id = u16::from_be_bytes([*header.first()?, *header.get(1)?]);
        let flags = *header.get(2)?;
        if flags & (QR | OPCODE) != 0 || header.get(4..6)? != [0, 1] {
            return None;
        }
        let packet = Packet::parse(&bytes).ok()?;
        let question = packet.questions.first()?;
        let name = question.qname.to_string().to_ascii_lowercase();
        let room = packet
            .opt()
            .map_or(PLAIN, |opt| usize::from(opt.udp_packet_size).max(PLAIN));
        let question_end = question_end(&bytes)?;
        Some(Self {
            id,
            name,
            question_end,
            room,
            bytes,
        })
    }

    /// The client's id.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// The name asked for, lower case, without the final dot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same query under another id.
    pub fn with_id(&self, id: u16) -> Vec<u8> {
        renamed(&self.bytes, id)
    }

    /// Whether this is an answer to this question under this id.
    pub fn is_answered_by(&self, answer: &[u8], id: u16) -> bool {
        let question = self
            .bytes
            .get(4..6)
            .zip(self.bytes.get(HEADER..self.question_end));
        let theirs = answer.get(4..6).zip(answer.get(HEADER..self.question_end));
        let same = question
            .zip(theirs)
            .is_some_and(|((count, asked), (counted, said))| {
                count == counted && asked.eq_ignore_ascii_case(said)
            });
        same && answer.starts_with(&id.to_be_bytes()) && answer.get(2).is_some_and(|flags| flags & QR != 0)
    }

    /// An empty answer with this code.
    pub fn error(&self, code: Rcode) -> Vec<u8> {
        self.empty(0, code as u8)
    }

    fn empty(&self, flags: u8, code: u8) -> Vec<u8> {
        let recursion = self.bytes.get(2).copied().unwrap_or_default() & RD;
        let mut answer = self.id.to_be_bytes().to_vec();
        answer.extend_from_slice(&[QR | recursion | flags, 0x80 | code, 0, 1, 0, 0, 0, 0, 0, 0]);
        answer.extend_from_slice(self.bytes.get(HEADER..self.question_end).unwrap_or_default());
        answer
    }

    /// Takes out of an answer what would hide a later connection's name, and reads its addresses.
    ///
    /// # Errors
    /// It is not understood: then nobody can say what is in it.
    pub fn clean(&self, answer: &[u8]) -> io::Result<Clean> {
        let malformed = |error: simple_dns::SimpleDnsError| io::Error::other(error.to_string());
        let mut packet = Packet::parse(answer).map_err(malformed)?;
        let addresses = packet.answers.iter().filter_map(address).collect();
        let mut stripped = false;
        let sections = [
            &mut packet.answers,
            &mut packet.name_servers,
            &mut packet.additional_records,
        ];
        for record in sections.into_iter().flatten() {
            stripped |= strip(&mut record.rdata);
        }
        let bytes = if stripped {
            packet.set_id(self.id);
            let bytes = packet.build_bytes_vec_compressed().map_err(malformed)?;
            if bytes.len() > answer.len().max(self.room) {
                self.empty(TC, 0)
            } else {
                bytes
            }
        } else {
            renamed(answer, self.id)
        };
        Ok(Clean {
            bytes,
            stripped,
            addresses,
        })
    }
}

fn renamed(message: &[u8], id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend_from_slice(message.get(2..).unwrap_or_default());
    bytes
}

/// Labels without compression, then type and class.
fn question_end(bytes: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => at += length,
            _ => return None,
        }
        if at > HEADER + 255 {
            return None;
        }
    }
    (at + 4 <= bytes.len()).then_some(at + 4)
}

fn address(record: &ResourceRecord<'_>) -> Option<(IpAddr, Duration)> {
    let address = match &record.rdata {
        RData::A(a) => IpAddr::V4(Ipv4Addr::from(a.address)),
        RData::AAAA(aaaa) => IpAddr::V6(Ipv6Addr::from(aaaa.address)),
        _ => return None,
    };
    Some((address, Duration::from_secs(record.ttl.into())))
}

/// Says whether there was something to take out.
fn strip(data: &mut RData<'_>) -> bool {
    match data {
        RData::HTTPS(https) => strip_binding(&mut https.0),
        RData::SVCB(svcb) => strip_binding(svcb),
        _ => false,
    }
}

/// HTTP/3, or a draft of it.
fn is_h3(protocol: &CharacterString<'_>) -> bool {
    String::try_from(protocol.clone()).is_ok_and(|name| name == "h3" || name.starts_with("h3-"))
}

fn strip_binding(binding: &mut SVCB<'_>) -> bool {
    let mut stripped = false;
    let mut kept = Vec::new();
    for parameter in binding.iter_params() {
        match parameter {
            SVCParam::Ech(_) => stripped = true,
            SVCParam::Alpn(names) if names.iter().any(is_h3) => {
                stripped = true;
                let left: Vec<_> = names.iter().filter(|name| !is_h3(name)).cloned().collect();
                if !left.is_empty() {
                    kept.push(SVCParam::Alpn(left));
                }
            }
            other => kept.push(other.clone()),
        }
    }
    if !stripped {
        return false;
    }
    let has_alpn = kept.iter().any(|parameter| parameter.key_code() == KEY_ALPN);
    let mut clean = SVCB::new(binding.priority, binding.target.clone());
    for parameter in kept {
        match parameter {
            // What is gone can't be mandatory.
            SVCParam::Mandatory(keys) => clean.set_mandatory(
                keys.into_iter()
                    .filter(|key| *key != KEY_ECH && (*key != KEY_ALPN || has_alpn)),
            ),
            other => clean.set_param(other),
        }
    }
    *binding = clean;
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::rdata::{A, HTTPS};
    use simple_dns::{CLASS, Name, QCLASS, QTYPE, Question, TYPE};

    use super::*;

    fn query(kind: TYPE) -> Query {
        let mut packet = Packet::new_query(7);
        let name = Name::new("Www.Example.com").unwrap();
        packet.questions.push(Question::new(
            name,
            QTYPE::TYPE(kind),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        Query::read(packet.build_bytes_vec().unwrap()).unwrap()
    }

    fn answer(query: &Query, data: RData<'static>) -> Vec<u8> {
        let bytes = query.with_id(99);
        let mut packet = Packet::parse(&bytes).unwrap().into_reply();
        let name = Name::new("www.example.com").unwrap();
        packet
            .answers
            .push(ResourceRecord::new(name, CLASS::IN, 300, data));
        packet.build_bytes_vec_compressed().unwrap()
    }

    #[test]
    fn ech_and_http3_are_taken_out_of_a_service_binding_and_the_rest_stays() {
        let query = query(TYPE::HTTPS);
        let mut binding = SVCB::new(1, Name::new("svc.example.com").unwrap());
        binding.set_mandatory([KEY_ALPN, KEY_ECH].into_iter());
        binding.set_alpn(&[
            CharacterString::new(b"h3").unwrap(),
            CharacterString::new(b"h2").unwrap(),
        ]);
        binding.set_port(8443);
        binding.set_param(SVCParam::Ech(b"config".as_slice().into()));
        let clean = query
            .clean(&answer(&query, RData::HTTPS(HTTPS(binding))))
            .unwrap();
        assert!(clean.stripped);
        let packet = Packet::parse(&clean.bytes).unwrap();
        assert_eq!(packet.id(), 7);
        let RData::HTTPS(https) = &packet.answers[0].rdata else {
            panic!("no HTTPS record");
        };
        let left: Vec<_> = https.0.iter_params().cloned().collect();
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(https.0.get_param(KEY_ECH).is_none());
        assert_eq!(
            https.0.get_param(KEY_ALPN),
            Some(&SVCParam::Alpn(vec![CharacterString::new(b"h2").unwrap()]))
        );
        assert_eq!(https.0.get_param(3), Some(&SVCParam::Port(8443)));
    }

    #[test]
    fn an_answer_without_them_passes_byte_by_byte_under_the_clients_id() {
        let query = query(TYPE::A);
        let came = answer(&query, RData::A(A { address: 0xcb00_7107 }));
        let clean = query.clean(&came).unwrap();
        assert!(!clean.stripped);
        assert_eq!(clean.bytes[..2], [0, 7]);
        assert_eq!(clean.bytes[2..], came[2..]);
        let address = "203.0.113.7".parse().unwrap();
        assert_eq!(clean.addresses, [(address, Duration::from_secs(300))]);
    }

    #[test]
    fn only_an_answer_to_the_same_question_under_the_same_id_counts() {
        let asked = query(TYPE::A);
        let came = answer(&asked, RData::A(A { address: 1 }));
        assert!(asked.is_answered_by(&came, 99));
        assert!(!asked.is_answered_by(&came, 98));
        assert!(!query(TYPE::AAAA).is_answered_by(&came, 99));
        assert!(
            !asked.is_answered_by(&asked.with_id(99), 99),
            "a query is no answer"
        );
    }

    #[test]
    fn an_error_repeats_the_question() {
        let query = query(TYPE::A);
        let error = query.error(Rcode::Refused);
        assert!(query.is_answered_by(&error, 7));
        assert_eq!(Packet::parse(&error).unwrap().rcode(), simple_dns::RCODE::Refused);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_and_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            at in 0_usize..60,
        ) {
            let mut changed = query(TYPE::HTTPS).with_id(3);
            for (offset, byte) in bytes.iter().take(8).enumerate() {
                if let Some(slot) = changed.get_mut(at + offset * 3) {
                    *slot = *byte;
                }
            }
            for bytes in [bytes, changed] {
                if let Some(read) = Query::read(bytes.clone()) {
                    prop_assert!(read.error(Rcode::Refused).len() <= bytes.len());
                }
                drop(query(TYPE::A).clean(&bytes));
            }
        }
    }
}
