//! Where members lie in the kernel's structures, from the kernel's own type information (`/sys/kernel/btf/vmlinux`): the
//! format is described in the kernel's `Documentation/bpf/btf.rst`. The library reads it too, and keeps it to itself.

use std::io;

const MAGIC: u16 = 0xeb9f;
const TYPE: usize = 12;
const MEMBER: usize = 12;
const STRUCT: u32 = 4;

/// The type information.
pub(super) struct Types {
    bytes: Vec<u8>,
    /// Where the types begin and end, and where the strings begin.
    types: (usize, usize),
    strings: usize,
}

/// One type: its kind, its number of members, and where those are.
struct Type<'a> {
    name: u32,
    kind: u32,
    members: usize,
    /// Members' offsets have the width of a bit field in their upper byte.
    has_widths: bool,
    rest: &'a [u8],
}

impl Types {
    /// # Errors
    /// It is something else.
    pub(super) fn parse(bytes: Vec<u8>) -> io::Result<Self> {
        let magic = bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
        let header = || {
            let length = word(&bytes, 4)?;
            let begin = length.checked_add(word(&bytes, 8)?)?;
            let end = begin.checked_add(word(&bytes, 12)?)?;
            Some((
                (at(begin)?, at(end)?),
                at(length.checked_add(word(&bytes, 16)?)?)?,
            ))
        };
        match (magic, header()) {
            (Some(MAGIC), Some((types, strings))) => Ok(Self {
                types,
                strings,
                bytes,
            }),
            _ => Err(io::Error::other("this is no type information")),
        }
    }

    /// Where a member begins in its structure, in bytes.
    ///
    /// # Errors
    /// There is no such member.
    pub(super) fn offset(&self, structure: &str, member: &str) -> io::Result<u32> {
        self.all()
            .filter(|one| one.kind == STRUCT && one.members > 0 && self.is_named(one.name, structure))
            .find_map(|one| {
                let mut members = one.rest.chunks_exact(MEMBER).take(one.members);
                let found =
                    members.find(|bytes| word(bytes, 0).is_some_and(|name| self.is_named(name, member)))?;
                let bits = word(found, 8)?;
                Some(if one.has_widths { bits & 0x00ff_ffff } else { bits } / 8)
            })
            .ok_or_else(|| io::Error::other(format!("this kernel has no {structure}.{member}")))
    }

    fn all(&self) -> impl Iterator<Item = Type<'_>> {
        let mut rest = self.bytes.get(self.types.0..self.types.1).unwrap_or_default();
        std::iter::from_fn(move || {
            let (name, info) = (word(rest, 0)?, word(rest, 4)?);
            let (kind, members) = (info >> 24 & 0x1f, at(info & 0xffff)?);
            let after = rest.get(TYPE..)?;
            rest = after.get(length_of_rest(kind, members)..)?;
            Some(Type {
                name,
                kind,
                members,
                has_widths: info >> 31 != 0,
                rest: after,
            })
        })
    }

    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let start = at(name).and_then(|name| self.strings.checked_add(name));
        let bytes = start
            .and_then(|start| self.bytes.get(start..))
            .unwrap_or_default();
        bytes
            .strip_prefix(wanted.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// What follows a type of this kind.
fn length_of_rest(kind: u32, members: usize) -> usize {
    match kind {
        // Integers, variables, tags of declarations.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures, unions, sections, long enumerations.
        4 | 5 | 15 | 19 => members * MEMBER,
        // Enumerations, parameters.
        6 | 13 => members * 8,
        _ => 0,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*four))
}

fn at(number: u32) -> Option<usize> {
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two types: an integer, and a structure with one member at bit 64.
    fn made_up() -> Vec<u8> {
        let strings = b"\0int\0cgroup\0level\0";
        let words: [u32; 10] = [1, 1 << 24, 4, 32, 5, STRUCT << 24 | 1, 16, 12, 1, 64];
        let mut bytes = Vec::from(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        let types = u32::try_from(words.len() * 4).unwrap();
        for word in [24, 0, types, types, u32::try_from(strings.len()).unwrap()] {
            bytes.extend(word.to_ne_bytes());
        }
        for word in words {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn a_member_is_found_by_its_name_and_what_is_cut_is_an_error() {
        let whole = made_up();
        let types = Types::parse(whole.clone()).unwrap();
        assert_eq!(types.offset("cgroup", "level").unwrap(), 8);
        assert!(types.offset("cgroup", "lev").is_err() && types.offset("cgro", "level").is_err());
        for length in 0..whole.len() {
            let cut = Types::parse(whole[..length].to_vec());
            assert!(
                cut.is_err() || cut.unwrap().offset("cgroup", "level").is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn this_kernels_own_structures_are_found() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            return;
        };
        let types = Types::parse(bytes).unwrap();
        for (structure, member) in [
            ("cgroup", "kn"),
            ("cgroup_root", "hierarchy_id"),
            ("kernfs_node", "id"),
        ] {
            types.offset(structure, member).unwrap();
        }
    }
}
