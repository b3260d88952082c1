//! How systemd lays out its units in the cgroup tree: slices inside slices, units inside slices, and below a unit whatever
//! the unit makes of it (systemd.slice(5), "Control Group APIs and Delegation" in systemd's documentation).

use globset::GlobMatcher;

/// The kinds of unit that have processes.
const KINDS: [&str; 3] = [".service", ".scope", ".slice"];

/// Whether a unit's name (or a pattern of it) says what kind it is.
pub(super) fn has_kind(name: &str) -> bool {
    KINDS
        .iter()
        .any(|kind| name.len() > kind.len() && name.ends_with(kind))
}

/// Whether a cgroup's name is a slice's.
pub(super) fn is_slice(name: &str) -> bool {
    name.ends_with(".slice")
}

/// Whether the cgroup is a unit of this name, or a unit in a slice of this name: each of those is a run of its own.
pub(super) fn is_named(path: &[&str], name: &GlobMatcher) -> bool {
    let Some((last, above)) = path.split_last() else {
        return false;
    };
    let in_slices = above.iter().all(|name| is_slice(name));
    let slice_matches = above.last().is_some_and(|slice| name.is_match(plain(slice)));
    in_slices && has_kind(last) && (name.is_match(plain(last)) || slice_matches)
}

/// The service or scope that a cgroup belongs to; none outside systemd's tree. `path` begins with a slash.
#[must_use]
pub fn unit_of(path: &str) -> Option<&str> {
    let mut names = path.split('/').filter(|name| !name.is_empty());
    let unit = names.find(|name| !is_slice(name))?;
    let above = path.split_once(unit)?.0;
    let in_slices = above.split('/').filter(|name| !name.is_empty()).all(is_slice);
    (in_slices && has_kind(unit)).then(|| plain(unit))
}

/// A name that the kernel could take for a file of its own is escaped by an underscore in front.
fn plain(name: &str) -> &str {
    name.strip_prefix('_').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::unit_of;

    #[test]
    fn the_unit_is_the_first_name_that_is_no_slice() {
        for (path, unit) in [
            ("/system.slice/coder@1.service", Some("coder@1.service")),
            (
                "/agents.slice/agents-a.slice/x.service/deep/er",
                Some("x.service"),
            ),
            (
                "/user.slice/user-0.slice/session-3.scope",
                Some("session-3.scope"),
            ),
            ("/system.slice/_cpu.service", Some("cpu.service")),
            ("/guard.slice/coder/01J", None),
            ("/containers/0123", None),
            ("/system.slice", None),
            ("/", None),
        ] {
            assert_eq!(unit_of(path), unit, "{path}");
        }
    }
}
