//! What belongs to an agent: `/a/b` and `/a/*/b` name cgroups, `/a/**` names `/a` and everything below, and what does not
//! begin with a slash names a systemd unit, wherever its slice is.

use globset::{Glob, GlobBuilder, GlobMatcher};

use super::unit;
use crate::kernel::KernelError;

/// One pattern of one agent.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) agent: u32,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Path {
        components: Vec<GlobMatcher>,
        /// Ends in `**`: each direct child is a run of its own.
        subtree: bool,
    },
    Unit(GlobMatcher),
}

/// All patterns, in the order of the configuration: the first that matches decides.
pub(super) fn parse(patterns: &[(u32, Vec<String>)]) -> Result<Vec<Pattern>, KernelError> {
    let one_by_one = patterns
        .iter()
        .flat_map(|(agent, globs)| globs.iter().map(move |glob| (*agent, glob)));
    one_by_one
        .map(|(agent, glob)| {
            Pattern::parse(agent, glob).map_err(|why| KernelError::Pattern {
                pattern: glob.clone(),
                why,
            })
        })
        .collect()
}

impl Pattern {
    fn parse(agent: u32, pattern: &str) -> Result<Self, String> {
        let place = match pattern.strip_prefix('/') {
            Some(path) => Place::path(path)?,
            None => Place::unit(pattern)?,
        };
        Ok(Self { agent, place })
    }

    /// Whether this very cgroup is to be governed.
    pub(super) fn matches(&self, path: &[&str]) -> bool {
        match &self.place {
            Place::Path { components, .. } => self.might_lie_below(path) && path.len() >= components.len(),
            Place::Unit(name) => unit::is_named(path, name),
        }
    }

    /// Whether this cgroup or one further down may match: what the watcher has to follow.
    pub(super) fn might_lie_below(&self, path: &[&str]) -> bool {
        match &self.place {
            Place::Path { components, subtree } => {
                path.len() <= components.len() + usize::from(*subtree)
                    && path
                        .iter()
                        .zip(components)
                        .all(|(name, glob)| glob.is_match(name))
            }
            // Units lie in slices, and nowhere else; what is in a unit's own cgroup is not systemd's any more.
            Place::Unit(name) => path.iter().all(|name| unit::is_slice(name)) || unit::is_named(path, name),
        }
    }
}

/// How the names of the units that patterns ask for begin; none for a pattern that begins with a wildcard.
pub(super) fn beginnings(patterns: &[Pattern]) -> Vec<String> {
    let names = patterns.iter().filter_map(|pattern| match &pattern.place {
        Place::Unit(glob) => glob.glob().glob().split(['*', '?', '[', '{']).next(),
        Place::Path { .. } => None,
    });
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Whether a cgroup's name begins so, as the programs compare it: as it is, or escaped by the kernel.
pub(super) fn begins_as_a_unit(patterns: &[Pattern], name: &str) -> bool {
    beginnings(patterns).iter().any(|unit| {
        name.starts_with(unit) || name.strip_prefix('_').is_some_and(|name| name.starts_with(unit))
    })
}

impl Place {
    fn path(path: &str) -> Result<Self, String> {
        let (path, subtree) = match path.strip_suffix("/**") {
            Some(base) => (base, true),
            None => (path, false),
        };
        let components = path.split('/').map(component).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::Path { components, subtree })
    }

    fn unit(name: &str) -> Result<Self, String> {
        if !unit::has_kind(name) || name.contains('/') {
            return Err(
                "must begin with / (a cgroup, relative to host.cgroup_root) or be a unit's name, such as coder.service"
                    .into(),
            );
        }
        // systemd escapes with backslashes, so they stand for themselves.
        let glob = GlobBuilder::new(name).backslash_escape(false).build();
        glob.map(|glob| Self::Unit(glob.compile_matcher()))
            .map_err(|error| error.to_string())
    }
}

fn component(component: &str) -> Result<GlobMatcher, String> {
    match component {
        "" => Err("names no cgroup, or has an empty component".into()),
        "." | ".." => Err("may not climb".into()),
        "**" => Err("** may only stand at the end, after at least one name".into()),
        name => Glob::new(name)
            .map(|glob| glob.compile_matcher())
            .map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    fn path(path: &str) -> Vec<&str> {
        path.split('/').filter(|name| !name.is_empty()).collect()
    }

    fn matches(pattern: &str, cgroup: &str) -> bool {
        Pattern::parse(1, pattern).unwrap().matches(&path(cgroup))
    }

    #[test]
    fn a_subtree_pattern_names_its_base_and_each_direct_child() {
        assert!(matches("/agents.slice/coder/**", "/agents.slice/coder"));
        assert!(matches("/agents.slice/coder/**", "/agents.slice/coder/one"));
        // Covered by its parent in the kernel, not a run of its own.
        assert!(!matches("/agents.slice/coder/**", "/agents.slice/coder/one/deep"));
        assert!(!matches("/agents.slice/coder/**", "/agents.slice"));
        assert!(!matches("/agents.slice/coder/**", "/agents.slice/coder2"));
    }

    #[test]
    fn a_star_stands_for_one_name_only() {
        assert!(matches("/a/*/b", "/a/x/b"));
        assert!(!matches("/a/*/b", "/a/x/y/b"));
        assert!(!matches("/a/*/b", "/a/x"));
        assert!(matches(
            "/system.slice/coder@*.service",
            "/system.slice/coder@7.service"
        ));
    }

    #[test]
    fn a_pattern_that_would_govern_the_whole_machine_is_refused() {
        for bad in [
            "/**",
            "/",
            "",
            "a/b",
            "a/b.service",
            "coder",
            "/a/**/b",
            "/a//b",
            "/a/../b",
            "/a/[",
            "/a/",
        ] {
            assert!(Pattern::parse(1, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_directories_on_the_way_to_a_match_are_followed() {
        let pattern = Pattern::parse(1, "/a/*/b").unwrap();
        assert!(pattern.might_lie_below(&path("/")) && pattern.might_lie_below(&path("/a/x")));
        assert!(!pattern.might_lie_below(&path("/c")) && !pattern.might_lie_below(&path("/a/x/b/c")));
    }

    #[test]
    fn a_unit_is_found_in_whatever_slice_it_is_and_nowhere_else() {
        assert!(matches("coder@*.service", "/system.slice/coder@1.service"));
        assert!(matches(
            "coder@*.service",
            r"/system.slice/system-coder.slice/coder@a\x2db.service"
        ));
        assert!(matches(
            r"coder\x2dx.service",
            r"/system.slice/coder\x2dx.service"
        ));
        assert!(!matches("coder@*.service", "/system.slice/coder.service"));
        // Below a unit the tree is the unit's own: a name there proves nothing.
        assert!(!matches(
            "coder@*.service",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/coder@1.service"
        ));
        assert!(!matches("coder@*.service", "/containers/coder@1.service"));
        // The kernel's own file names are escaped by an underscore.
        assert!(matches("cpu.service", "/system.slice/_cpu.service"));
    }

    #[test]
    fn names_begin_with_what_stands_before_the_first_wildcard() {
        let of = |globs: &[&str]| {
            let globs = globs.iter().map(|glob| (*glob).to_owned()).collect();
            super::beginnings(&super::parse(&[(1, globs)]).unwrap())
        };
        assert_eq!(
            of(&[
                "coder@*.service",
                "a.slice",
                "/x/coder.service",
                "*-agent.service",
                r"a\x2db.service"
            ]),
            ["coder@", "a.slice", r"a\x2db.service"]
        );
    }

    #[test]
    fn a_slice_names_itself_and_each_unit_in_it() {
        assert!(matches("agents.slice", "/agents.slice"));
        assert!(matches("agents.slice", "/agents.slice/coder.service"));
        assert!(matches(
            "agents-*.slice",
            "/agents.slice/agents-a.slice/coder.service"
        ));
        assert!(!matches("agents-*.slice", "/agents.slice"));
        assert!(!matches("agents.slice", "/agents.slice/coder.service/below"));
    }

    #[test]
    fn of_a_tree_with_units_only_slices_and_matches_are_followed() {
        let pattern = Pattern::parse(1, "coder@*.service").unwrap();
        assert!(pattern.might_lie_below(&path("/")) && pattern.might_lie_below(&path("/system.slice")));
        assert!(pattern.might_lie_below(&path("/system.slice/coder@1.service")));
        assert!(!pattern.might_lie_below(&path("/system.slice/sshd.service")));
        assert!(!pattern.might_lie_below(&path("/containers")));
    }
}
