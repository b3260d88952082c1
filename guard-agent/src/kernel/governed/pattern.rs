//! Cgroup patterns: `/a/b` and `/a/*/b` name cgroups, `/a/**` names `/a` and everything below.

use globset::{Glob, GlobMatcher};

use crate::kernel::KernelError;

/// One pattern of one agent.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) agent: u32,
    components: Vec<GlobMatcher>,
    /// Ends in `**`: each direct child is a run of its own.
    subtree: bool,
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
        let Some(path) = pattern.strip_prefix('/') else {
            return Err("must begin with /, relative to host.cgroup_root".into());
        };
        let (path, subtree) = match path.strip_suffix("/**") {
            Some(base) => (base, true),
            None => (path, false),
        };
        let components = path.split('/').map(component).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            agent,
            components,
            subtree,
        })
    }

    /// Whether this very cgroup is to be governed.
    pub(super) fn matches(&self, path: &[&str]) -> bool {
        self.might_lie_below(path) && path.len() >= self.components.len()
    }

    /// Whether this cgroup or one further down may match: what the watcher has to follow.
    pub(super) fn might_lie_below(&self, path: &[&str]) -> bool {
        path.len() <= self.components.len() + usize::from(self.subtree)
            && path
                .iter()
                .zip(&self.components)
                .all(|(name, glob)| glob.is_match(name))
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
            "/**", "/", "", "a/b", "/a/**/b", "/a//b", "/a/../b", "/a/[", "/a/",
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
}
