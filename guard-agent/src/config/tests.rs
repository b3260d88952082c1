//! What the file may say, what it may not, and how it is told.

use std::path::Path;

use super::*;
use crate::keys::KeySource;
use crate::ledger::Window;
use crate::llm::DialectKind;
use crate::llm::provider::Auth;
use crate::money::{PICO_PER_USD, Pico};

fn table() -> Vec<Provider> {
    let provider = |name: &str, host: &str, dialect, auth| Provider::plain(name, &[host], dialect, auth);
    vec![
        provider("openai", "api.openai.com", DialectKind::OpenaiChat, Auth::Bearer),
        provider(
            "anthropic",
            "api.anthropic.com",
            DialectKind::AnthropicMessages,
            Auth::XApiKeyOrBearer,
        ),
    ]
}

fn check(text: &str) -> Checked {
    check_text(text, "guard.toml", table())
}

#[track_caller]
fn fine(text: &str) -> Config {
    let checked = check(text);
    let problems: Vec<String> = checked.problems.iter().map(Problem::to_string).collect();
    checked
        .config
        .unwrap_or_else(|| panic!("refused:\n{}", problems.join("\n")))
}

/// The one problem of a file that has exactly one.
#[track_caller]
fn only_problem(text: &str) -> Problem {
    let mut problems = check(text).problems;
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}

const CODER: &str = "[[agent]]\nname = \"coder\"\nowner = \"team\"\nproviders = [\"openai\"]\n";

#[test]
fn an_empty_file_is_the_safe_defaults() {
    let config = fine("");
    assert_eq!(config.host.cgroup_root, Path::new("/sys/fs/cgroup"));
    assert_eq!(config.host.metrics.to_string(), "127.0.0.1:9477");
    assert_eq!(config.host.mode, Mode::Enforce);
    assert_eq!(config.providers.len(), 2);
    assert_eq!(check("").problems.len(), 1, "nothing is governed: a warning");
}

#[test]
fn a_minimal_agent_gets_ten_dollars_a_day_and_every_model() {
    let config = fine(CODER);
    let agent = &config.agents[0];
    assert_eq!((&*agent.name, &*agent.owner), ("coder", "team"));
    assert_eq!(agent.budgets.len(), 1);
    assert_eq!(agent.budgets[0].window, Window::Day);
    assert_eq!(agent.budgets[0].limit, Pico(10 * PICO_PER_USD).into());
    assert_eq!(agent.budgets[0].soft_ppm, Some(800_000));
    assert!(agent.models[0].covers("anything-at-all"));
    assert_eq!(agent.login, Login::Refuse);
    assert!(agent.tools.is_none() && agent.endpoints.is_empty() && agent.cgroups.is_empty());
}

#[test]
fn everything_that_works_can_be_said() {
    let config = fine(
        r#"
        [host]
        cgroup_root = "/sys/fs/cgroup/test"
        state_dir = "/tmp/s"
        runtime_dir = "/tmp/r"
        bpffs = "/sys/fs/bpf/test"
        metrics = "[::1]:9000"
        mode = "observe"
        timezone = "UTC"
        when_down = "refuse"
        unknown_when_down = "refuse"
        [defaults]
        budget = [{ window = "week", usd = 7 }]
        unpriced = "refuse"
        [[provider]]
        name = "openai"
        hosts = ["EU.api.openai.com"]
        keys = [{ name = "prod-1", from = "file:/etc/guard/keys/openai" }, { name = "b", from = "env:KEY_B" },
                { name = "c", from = "credential:openai" }]
        connect_to = "127.0.0.1:18443"
        trust = ["/etc/guard/corp-ca.pem"]
        [[provider]]
        name = "corp"
        hosts = ["llm.corp.example"]
        dialect = "openai-chat"
        auth = "x-api-key"
        base_path = "/openai"
        [[agent]]
        name = "coder"
        owner = "platform-team"
        match = [{ cgroup = "/agents.slice/coder/**" }]
        providers = ["anthropic", "corp"]
        models = ["claude-*", "gpt-5*"]
        endpoints = ["/v1/files"]
        login = "pass"
        tools = { allow = ["Read", "mcp__*"], on_violation = "refuse" }
        caps = { output_tokens = 8_192, in_flight = 8 }
        budget = [{ window = "day", usd = 20.000000000001, soft = 0.8 }, { window = "run", usd = 5 }]
        egress = { default = "allow", deny = [], allow = [], loopback = "own", private = "allow", inbound = "allow" }
        [[agent]]
        name = "second"
        owner = "x"
        providers = ["openai"]
        [ledger]
        store = "sqlite"
        "#,
    );
    assert_eq!(config.host.mode, Mode::Observe);
    let openai = &config.providers[0];
    assert_eq!(openai.hosts, ["api.openai.com", "eu.api.openai.com"]);
    assert_eq!(openai.keys[1].source, KeySource::Env("KEY_B".into()));
    assert_eq!(openai.connect_to.unwrap().port(), 18443);
    assert_eq!(config.providers[2].formats[0].base, "/openai");
    let agent = &config.agents[0];
    assert_eq!(agent.cgroups, ["/agents.slice/coder/**"]);
    assert_eq!(
        agent.budgets[0].limit,
        Pico(20 * PICO_PER_USD + 1).into(),
        "to the pico-dollar"
    );
    assert_eq!(agent.caps.output_tokens, Some(8192));
    assert_eq!(agent.caps.in_flight, Some(8));
    assert!(agent.models[0].covers("claude-haiku-4-5") && !agent.models[0].covers("gpt-5"));
    assert_eq!(agent.tools.as_ref().unwrap().on_violation, OnViolation::Refuse);
    assert_eq!(
        config.agents[1].budgets[0].window,
        Window::Week,
        "from [defaults]"
    );
}

#[test]
fn a_budget_counts_dollars_tokens_or_calls_and_one_of_them_only() {
    let limits = |budgets: &str| {
        let checked = check(&format!("{CODER}budget = [{budgets}]"));
        let shown = checked.config.map(|config| {
            let budgets = config.agents[0].budgets.iter();
            budgets
                .map(|budget| format!("{} a {}", budget.limit, budget.window.label()))
                .collect::<Vec<_>>()
        });
        (shown, checked.problems)
    };
    let (shown, problems) = limits(
        "{ window = \"day\", tokens = 2_000_000 }, { window = \"hour\", calls = 200 }, { window = \"day\", usd = 20, soft = 0.8 }",
    );
    assert!(problems.is_empty(), "{problems:#?}");
    assert_eq!(
        shown.unwrap(),
        ["2000000 tokens a day", "200 calls a hour", "$20.00 a day"]
    );
    let (shown, problems) = limits("{ window = \"day\", calls = 5 }");
    assert!(shown.is_some() && problems[0].message.starts_with("no limit in dollars"));
    for (budgets, said) in [
        ("{ window = \"day\" }", "needs `usd`"),
        ("{ window = \"day\", usd = 1, calls = 5 }", "several limits"),
        ("{ window = \"day\", usd = 1, tokens = 0 }", "several limits"),
        ("{ window = \"day\", tokens = 0 }", "above 0"),
        ("{ window = \"day\", tokens = 1.5 }", "a whole number"),
        (
            "{ window = \"day\", calls = 1 }, { window = \"day\", calls = 2 }, { window = \"day\", usd = 2 }",
            "a second budget for the window \"day\" in calls",
        ),
    ] {
        let (_, problems) = limits(budgets);
        let errors: Vec<_> = problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .collect();
        assert_eq!(errors.len(), 1, "{budgets}: {problems:#?}");
        assert!(errors[0].message.contains(said), "{budgets}: {problems:#?}");
    }
}

#[test]
fn six_mistakes_are_six_problems_each_with_its_line() {
    let text = r#"[host]
state_dri = "/var/lib/guard"
metrics = "0.0.0.0:9477"

[[agent]]
name = "coder"
owner = ""
providers = ["opnai"]
budget = [{ window = "day", usd = -5.0 }]
models = "gpt-5*"
"#;
    let problems = check(text).problems;
    let seen: Vec<(usize, usize, &str)> = problems
        .iter()
        .map(|p| (p.line, p.column, p.message.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (2, 1, "unknown key `state_dri` in [host]"),
            (
                3,
                11,
                "`metrics` must be a loopback address, not 0.0.0.0: the figures are not for the network"
            ),
            (7, 9, "`owner` must be 1 to 128 printable characters"),
            (8, 14, "unknown provider \"opnai\""),
            (9, 35, "a budget cannot be negative (-5.0)"),
            (10, 10, "`models` must be a list of strings, not a string"),
        ]
    );
    assert_eq!(problems[0].fix, "did you mean `state_dir`?");
    assert_eq!(problems[3].fix, "did you mean \"openai\"?");
    assert!(
        problems
            .iter()
            .all(|p| p.severity == Severity::Error && !p.fix.is_empty())
    );
    assert_eq!(
        problems[3].to_string(),
        "guard.toml:8:14: error: unknown provider \"opnai\"\n    fix: did you mean \"openai\"?"
    );
}

#[test]
fn a_syntax_error_does_not_hide_a_mistake_elsewhere() {
    let text = "[host]\nmode = \"obsrve\"\nstate_dir = /var\n[[agent]]\nnamme = \"x\"\n";
    let problems = check(text).problems;
    let lines: Vec<usize> = problems.iter().map(|p| p.line).collect();
    assert_eq!(lines, [2, 3, 5], "{problems:#?}");
}

#[test]
fn what_does_not_work_yet_is_refused_by_name() {
    for line in [
        "[ledger]\nstore = \"postgres://db/guard\"",
        "[[provider]]\nname = \"openai\"\nkeys = [{ name = \"a\", from = \"vault:secret/x#y\" }]",
    ] {
        let errors: Vec<Problem> = check(line)
            .problems
            .into_iter()
            .filter(|p| p.severity == Severity::Error)
            .collect();
        assert_eq!(errors.len(), 1, "{line}: {errors:#?}");
        assert!(
            errors[0].message.contains("not available in this version"),
            "{line}: {errors:#?}"
        );
    }
}

#[test]
fn a_container_label_brings_the_engine_with_it() {
    let text = format!("{CODER}match = [{{ container_label = \"guard.agent=coder\" }}]");
    let config = check(&text).config.unwrap();
    let label = ContainerLabel {
        key: "guard.agent".to_owned(),
        value: "coder".to_owned(),
    };
    assert_eq!(config.agents[0].container_labels, [label]);
    assert_eq!(
        config.host.docker.as_deref(),
        Some(Path::new("/var/run/docker.sock"))
    );
    let places: Vec<(&str, bool)> = config
        .host
        .container_cgroups
        .iter()
        .map(|place| (place.parent.to_str().unwrap(), place.dedicated))
        .collect();
    assert_eq!(places, [("docker", true), ("system.slice", false)]);
    assert!(config.host.container_cgroups[1].name.is_match("docker-0a.scope"));
    assert!(!config.host.container_cgroups[1].name.is_match("ssh.service"));
    assert_eq!(check(CODER).config.unwrap().host.docker, None);
}

#[test]
fn what_cannot_be_a_container_is_named() {
    let second = CODER.replace("\"coder\"", "\"second\"");
    let label = "match = [{ container_label = \"guard.agent=coder\" }]";
    for (text, said) in [
        (
            format!("{CODER}match = [{{ container_label = \"guard.agent\" }}]"),
            "bad container label",
        ),
        (
            format!("{CODER}match = [{{ container_label = \"=coder\" }}]"),
            "bad container label",
        ),
        (
            format!("{CODER}match = [{{ container_label = \"a=b\", cgroup = \"/a\" }}]"),
            "with 2 keys",
        ),
        (
            format!("{CODER}{label}\n{second}{label}"),
            "already agent \"coder\"'s",
        ),
        (
            "[host]\ndocker = \"tcp://127.0.0.1:2375\"".to_owned(),
            "bad socket address",
        ),
        (
            "[host]\ncontainer_cgroups = [\"/*\"]".to_owned(),
            "where containers are",
        ),
        (
            "[host]\ncontainer_cgroups = [\"/*/docker\"]".to_owned(),
            "where containers are",
        ),
        (
            "[host]\ncontainer_cgroups = [\"docker/*\"]".to_owned(),
            "where containers are",
        ),
        (
            "[host]\ncontainer_cgroups = [\"/docker/../*\"]".to_owned(),
            "where containers are",
        ),
    ] {
        let errors: Vec<Problem> = check(&text)
            .problems
            .into_iter()
            .filter(|p| p.severity == Severity::Error)
            .collect();
        assert_eq!(errors.len(), 1, "{text}: {errors:#?}");
        assert!(errors[0].message.contains(said), "{text}: {errors:#?}");
    }
}

#[test]
fn every_key_of_the_schema_is_one_the_reader_knows() {
    // A key that is planned or works never reads as unknown; one that is not in the schema always does.
    for key in schema::KEYS {
        let text = match key.section {
            "" => format!("{} = 0", key.name),
            "host" | "defaults" | "ledger" | "prices" => format!("[{}]\n{} = 0", key.section, key.name),
            "provider" | "agent" | "alert" => format!("[[{}]]\n{} = 0", key.section, key.name),
            "shared" => format!("[[budget]]\n{} = true", key.name),
            "budget" => format!("[defaults]\nbudget = [{{ {} = true }}]", key.name),
            "provider.keys" | "provider.speaks" | "agent.match" => {
                let (outer, inner) = key.section.split_once('.').unwrap();
                format!("[[{outer}]]\n{inner} = [{{ {} = 0 }}]", key.name)
            }
            "agent.tools.arguments" => format!(
                "[[agent]]\ntools = {{ arguments = [{{ tool = \"x\", {} = 0 }}] }}",
                key.name
            )
            .replace("tool = \"x\", tool = 0", "tool = 0"),
            "budget.on_soft" => format!("[[budget]]\non_soft = {{ {} = true }}", key.name),
            "agent.loops.rule" => format!("[[agent]]\nloops = {{ repeat = {{ {} = \"?\" }} }}", key.name),
            _ => {
                let (outer, inner) = key.section.split_once('.').unwrap();
                format!("[[{outer}]]\n{inner} = {{ {} = \"?\" }}", key.name)
            }
        };
        let problems = check(&text).problems;
        assert!(
            !problems.iter().any(|p| p.message.contains("unknown key")),
            "{text}: {problems:#?}"
        );
        assert!(
            problems
                .iter()
                .any(|p| p.message.contains(&format!("`{}`", key.name))),
            "nothing reads {}.{}: {problems:#?}",
            key.section,
            key.name
        );
    }
}

#[test]
fn numbers_are_read_as_written() {
    for (usd, message) in [
        ("0", "refuses every call"),
        ("0.0", "refuses every call"),
        ("1e3", "not an amount"),
        ("inf", "not an amount"),
        ("0.0000000000001", "not an amount"),
        ("99999999999", "not an amount"),
        ("-1", "negative"),
        ("\"5\"", "must be a decimal number"),
        ("0x10", "must be a decimal number"),
    ] {
        let problem = only_problem(&format!("{CODER}budget = [{{ window = \"day\", usd = {usd} }}]"));
        assert!(problem.message.contains(message), "{usd}: {problem}");
    }
    for soft in ["0", "1.1", "-0.5", "0.00000001", "8e-1"] {
        let problem = only_problem(&format!(
            "{CODER}budget = [{{ window = \"day\", usd = 1.0, soft = {soft} }}]"
        ));
        assert!(problem.message.contains("fraction above 0"), "{soft}: {problem}");
    }
    for cap in ["0", "-1", "99999999999999999999"] {
        let problem = only_problem(&format!("{CODER}caps = {{ output_tokens = {cap} }}"));
        assert!(problem.message.contains("above 0"), "{cap}: {problem}");
    }
}

#[test]
fn units_are_read_and_what_would_govern_guard_itself_is_refused() {
    let unit = |name: &str| format!("{CODER}match = [{{ unit = {name:?} }}]");
    for name in [
        "coder@*.service",
        "agents.slice",
        "agents-*.slice",
        r"a\x2db.service",
        "job-?.scope",
    ] {
        let config = parse(&unit(name), "guard.toml").unwrap();
        assert_eq!(config.agents[0].cgroups, [name]);
    }
    for (name, said) in [
        ("coder", "bad unit"),
        ("system.slice/coder.service", "bad unit"),
        ("coder.socket", "bad unit"),
        ("*.service", "covers guard-agent.service"),
        ("s*.slice", "covers system.slice"),
        ("guard*.slice", "covers guard.slice"),
    ] {
        let problem = only_problem(&unit(name));
        assert!(problem.message.contains(said), "{name}: {problem}");
    }
    let second = unit("coder.service").replace("\"coder\"", "\"other2\"");
    let problem = only_problem(&format!("{}\n{second}", unit("coder.service")));
    assert!(
        problem.message.contains("the unit \"coder.service\""),
        "{problem}"
    );
}

#[test]
fn semantic_mistakes_are_found() {
    let two = format!("{CODER}match = [{{ cgroup = \"/a/**\" }}]\n");
    for (text, message) in [
        (format!("{CODER}{CODER}"), "a second agent named"),
        (
            format!("{two}{}", two.replace("\"coder\"", "\"other2\"")),
            "is already agent \"coder\"'s",
        ),
        (CODER.replace("owner = \"team\"\n", ""), "[[agent]] needs `owner`"),
        (
            CODER.replace("providers = [\"openai\"]\n", ""),
            "[[agent]] needs `providers`",
        ),
        (CODER.replace("[\"openai\"]", "[]"), "can call nothing"),
        (CODER.replace("\"coder\"", "\"Co der\""), "bad name"),
        (CODER.replace("\"coder\"", "\"other\""), "every unknown name"),
        (format!("{CODER}budget = []"), "spending without a limit"),
        (
            format!("{CODER}budget = [{{ window = \"day\", usd = 1.0 }}, {{ window = \"day\", usd = 2.0 }}]"),
            "a second budget for the window",
        ),
        (
            format!("{CODER}budget = [{{ window = \"dya\", usd = 1.0 }}]"),
            "`window` is",
        ),
        (format!("{CODER}models = [\"a[b\"]"), "bad pattern"),
        (format!("{CODER}models = [\"{{a,b}}\"]"), "bad pattern"),
        (
            format!("{CODER}endpoints = [\"v1/files\"]"),
            "must begin with `/`",
        ),
        (
            format!("{CODER}tools = {{ on_violation = \"strip\" }}"),
            "needs `allow`",
        ),
        (
            format!("{CODER}match = [{{ cgroup = \"a/b\" }}]"),
            "must begin with `/`",
        ),
        (
            format!("{CODER}match = [{{ cgroup = \"/a/../b\" }}]"),
            "not a plain path",
        ),
        (
            format!("{CODER}match = [{{ cgroup = \"/**\" }}]"),
            "the whole host",
        ),
        (format!("{CODER}match = [{{}}]"), "needs `cgroup`"),
        (format!("[host]\nstate_dir = \"var\"\n{CODER}"), "absolute path"),
        (
            format!("[host]\nstate_dir = \"/a/../b\"\n{CODER}"),
            "without `..`",
        ),
        (
            format!("[host]\ntimezone = \"Mars/Base\"\n{CODER}"),
            "no time zone",
        ),
        (format!("[host]\nmetrics = \"localhost\"\n{CODER}"), "bad address"),
        (
            format!("[[provider]]\nname = \"opnai\"\n{CODER}"),
            "no built-in provider is named",
        ),
        (
            format!("[[provider]]\nname = \"openai\"\n[[provider]]\nname = \"openai\"\n{CODER}"),
            "a second [[provider]]",
        ),
        (
            format!("[[provider]]\nname = \"openai\"\ndialect = \"openai-chat\"\n{CODER}"),
            "is fixed",
        ),
        (
            format!("[[provider]]\nname = \"openai\"\nconnect_to = \"host:443\"\n{CODER}"),
            "bad address",
        ),
        (
            format!("[[provider]]\nname = \"openai\"\ntrust = [\"ca.pem\"]\n{CODER}"),
            "absolute path",
        ),
        (
            format!("[[provider]]\nname = \"openai\"\nhosts = [\"api.anthropic.com\"]\n{CODER}"),
            "belongs to both",
        ),
        (
            format!("[[provider]]\nname = \"openai\"\nhosts = [\"*.corp.example\"]\n{CODER}"),
            "not a host name",
        ),
        (
            format!("[[provider]]\nname = \"openai\"\nhosts = [\"10.0.0.1\"]\n{CODER}"),
            "not a host name",
        ),
        (
            format!(
                "[[provider]]\nname = \"openai\"\nkeys = [{{ name = \"a\", from = \"credential:../x\" }}]\n{CODER}"
            ),
            "does not say where",
        ),
    ] {
        let problem = only_problem(&text);
        assert!(problem.message.contains(message), "{text}\n{problem}");
        assert_eq!(problem.severity, Severity::Error, "{problem}");
        assert!(problem.line > 0 && !problem.fix.is_empty(), "{problem}");
    }
}

#[test]
fn a_key_pasted_into_the_file_is_not_repeated() {
    let problem = only_problem(&format!(
        "[[provider]]\nname = \"openai\"\nkeys = [{{ name = \"a\", from = \"sk-proj-SECRET\" }}]\n{CODER}"
    ));
    assert!(!problem.to_string().contains("SECRET"), "{problem}");
}

#[test]
fn a_provider_without_a_key_is_told_once_where_its_agents_have_no_login_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("guard.toml");
    let told = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let problems = super::check(&file).problems;
        problems
            .into_iter()
            .filter(|p| p.message.contains("has no key"))
            .collect::<Vec<_>>()
    };
    let found = told(CODER);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].severity, Severity::Warning);
    assert!(told(&format!("{CODER}login = \"pass\"\n")).is_empty());
}

#[test]
fn a_value_of_the_wrong_type_is_told_with_what_to_write() {
    for (text, hint) in [
        ("host = 1\n", "write [host] on a line of its own"),
        ("[agent]\nname = \"a\"\n", "write [[agent]] on a line of its own"),
        ("[[agent]]\nmodels = \"gpt-5\"\n", "write models = [\"…\"]"),
        (
            "[[agent]]\nbudget = [{ window = \"day\", usd = \"5\" }]\n",
            "write it without quotes",
        ),
        ("[[agent]]\nname = 5\n", "write it in quotes"),
    ] {
        let problems = check(text).problems;
        assert!(
            problems.iter().any(|p| p.fix.contains(hint)),
            "{text}: {problems:#?}"
        );
    }
    // What stands below a header that is no TOML is not called unknown, unless it looks like a slip.
    let problems = check("[[agent]\nname = \"coder\"\n").problems;
    assert!(
        problems.iter().all(|p| !p.message.contains("unknown key")),
        "{problems:#?}"
    );
}

#[test]
fn a_key_file_open_to_everyone_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (key, file) = (dir.path().join("key"), dir.path().join("guard.toml"));
    std::fs::write(&key, "sk-x").unwrap();
    let own = "hosts = [\"llm.corp.example\"]\ndialect = \"openai-chat\"";
    let text = format!(
        "[[provider]]\nname = \"corp\"\n{own}\nkeys = [{{ name = \"a\", from = \"file:{}\" }}]\n{}",
        key.display(),
        CODER.replace("openai", "corp")
    );
    std::fs::write(&file, text).unwrap();
    for (mode, severity) in [
        (0o644, Some(Severity::Error)),
        (0o640, Some(Severity::Warning)),
        (0o600, None),
    ] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let checked = super::check(&file);
        let found = checked.problems.first().map(|p| p.severity);
        assert_eq!(found, severity, "{mode:o}: {:#?}", checked.problems);
        assert_eq!(
            checked.config.is_some(),
            severity != Some(Severity::Error),
            "{mode:o}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let problems = load(Path::new("/nonexistent/guard.toml")).unwrap_err();
    assert!(problems[0].message.contains("cannot be read"), "{problems:#?}");
}

/// The documentation holds exactly one line for each key. `GUARD_WRITE_DOCS=1 cargo test` writes it anew.
#[test]
fn the_documentation_lists_every_key() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- keys: begin -->\n", "<!-- keys: end -->");
    let (before, rest) = text.split_once(begin).unwrap();
    let (listed, after) = rest.split_once(end).unwrap();
    let expected = markdown();
    if std::env::var_os("GUARD_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(
        listed, expected,
        "run: GUARD_WRITE_DOCS=1 cargo test -p guard-agent --lib config"
    );
}

fn markdown() -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    let mut section = None;
    for key in schema::KEYS {
        if section != Some(key.section) {
            section = Some(key.section);
            let title = match key.section {
                "" => "Top level".to_owned(),
                "budget" => "`budget` (in `[defaults]` and `[[agent]]`)".to_owned(),
                other => schema::header(other),
            };
            write!(
                out,
                "\n### {title}\n\n| key | value | default | effect |\n|---|---|---|---|\n"
            )
            .unwrap();
        }
        let note = match key.status {
            schema::Status::Works => String::new(),
            schema::Status::Only(word) => {
                format!(" *Only `{word}` is accepted: the rest is not available in this version.*")
            }
            schema::Status::Planned => " *Not available in this version: an error.*".to_owned(),
        };
        let row = [key.form, key.default, key.effect].map(|cell| cell.replace('|', "\\|"));
        writeln!(
            out,
            "| `{}` | {} | {} | {}{note} |",
            key.name, row[0], row[1], row[2]
        )
        .unwrap();
    }
    out.push('\n');
    out
}

#[test]
fn egress_rules_are_read_and_a_bad_one_is_told_with_its_line() {
    let text = format!(
        "{CODER}egress = {{ default = \"deny\", deny = [\"*.internal\"], allow = [\"10.0.0.0/8:5432\"], private = \"deny\" }}"
    );
    let config = check(&text).config.unwrap();
    let egress = &config.agents[0].egress;
    assert!(egress.judge("10.1.1.1:5432".parse().unwrap(), None, &[]).is_ok());
    assert!(
        egress
            .judge("203.0.113.1:443".parse().unwrap(), None, &[])
            .is_err()
    );
    let bad = format!("{CODER}egress = {{ allow = [\"https://example.com\", \"10.0.0.1/8\"] }}");
    let problems = check(&bad).problems;
    let fixes: Vec<&str> = problems.iter().map(|problem| problem.fix.as_str()).collect();
    assert!(
        fixes[0].contains("\"example.com\"") && fixes[1].contains("10.0.0.0/8"),
        "{problems:#?}"
    );
    assert!(
        problems
            .iter()
            .all(|problem| problem.line == text.lines().count()),
        "{problems:#?}"
    );
}

#[test]
fn tool_rules_say_what_calls_in_replies_may_be() {
    let text = format!(
        "{CODER}tools = {{ deny = [\"Bash\"], in_reply = \"refuse\", arguments = [{{ tool = \"Web*\", at = \"/url\", \
         allow = [\"https://docs.rs/*\"], deny_regex = [\"(?i)token=\"] }}] }}"
    );
    let config = parse(&text, "guard.toml").unwrap();
    let rules = config.agents[0].tools.as_ref().unwrap();
    assert!(rules.allows("Read") && !rules.allows("Bash"));
    assert_eq!(rules.in_reply, crate::llm::InReply::Refuse);
    let rule = &rules.arguments[0];
    assert!(rule.tool.covers("WebFetch") && rule.at == "/url");
    assert!(rule.allow[0].matches("https://docs.rs/x") && rule.deny[0].matches("?Token=1"));
    for (rules, said) in [
        (
            "{ deny = [\"a\"], arguments = [{ tool = \"x\" }] }",
            "says nothing",
        ),
        (
            "{ arguments = [{ tool = \"x\", at = \"url\", deny = [\"a\"] }] }",
            "JSON pointer",
        ),
        (
            "{ arguments = [{ tool = \"x\", deny_regex = [\"(\"] }] }",
            "bad expression",
        ),
        (
            "{ arguments = [{ tool = \"x\", deny_regex = [\"a{1000}{1000}\"] }] }",
            "bad expression",
        ),
        ("{ arguments = [{ deny = [\"a\"] }] }", "needs `tool`"),
    ] {
        let problems = parse(&format!("{CODER}tools = {rules}"), "guard.toml").unwrap_err();
        assert!(
            problems.iter().any(|p| p.message.contains(said)),
            "{rules}: {problems:#?}"
        );
    }
}

#[test]
fn shared_budgets_name_whose_calls_count() {
    let text = format!(
        "{CODER}budget = [{{ window = \"rolling:5h\", usd = 5 }}, {{ window = \"run\", usd = 2 }}, {{ window = \"run\", scope = \"session\", usd = 1 }}]\n\
         [[provider]]\nname = \"openai\"\nkeys = [{{ name = \"prod-1\", from = \"env:X\" }}]\n\
         [[budget]]\nowner = \"team\"\nwindow = \"month\"\nusd = 100.0\nsoft = 0.5\n\
         [[budget]]\nkey = \"openai/prod-1\"\nwindow = \"day\"\nusd = 50\n\
         [[budget]]\nmodel = \"gpt-5*\"\nwindow = \"rolling:90m\"\nusd = 5\n\
         [[budget]]\nscope = \"host\"\nwindow = \"day\"\nusd = 200\n"
    );
    let config = fine(&text);
    let own: Vec<_> = config.agents[0]
        .budgets
        .iter()
        .map(|budget| (budget.per, budget.window))
        .collect();
    assert_eq!(
        own,
        [
            (Per::Agent, Window::Rolling(300)),
            (Per::Agent, Window::Run),
            (Per::Session, Window::Run)
        ]
    );
    let shared: Vec<String> = config
        .budgets
        .iter()
        .map(|shared| {
            format!(
                "{} {} {}",
                shared.scope().kind.label(),
                shared.scope().name,
                shared.budget.window.label()
            )
        })
        .collect();
    assert_eq!(
        shared,
        [
            "owner team month",
            "key openai/prod-1 day",
            "model gpt-5* rolling:90m",
            "host host day"
        ]
    );
    assert_eq!(config.budgets[0].budget.soft_ppm, Some(500_000));
}

#[test]
fn a_shared_budget_that_counts_nothing_or_cannot_is_an_error() {
    for (lines, said) in [
        ("window = \"day\"\nusd = 1", "exactly one key"),
        (
            "owner = \"team\"\nscope = \"host\"\nwindow = \"day\"\nusd = 1",
            "exactly one key",
        ),
        (
            "owner = \"taem\"\nwindow = \"day\"\nusd = 1",
            "no agent has the owner",
        ),
        (
            "key = \"openai/prod-9\"\nwindow = \"day\"\nusd = 1",
            "no provider has the key",
        ),
        ("scope = \"hosts\"\nwindow = \"day\"\nusd = 1", "`scope` is"),
        ("scope = \"host\"\nwindow = \"run\"\nusd = 1", "has no runs"),
        (
            "scope = \"host\"\nwindow = \"rolling:5s\"\nusd = 1",
            "`window` is",
        ),
        (
            "scope = \"host\"\nwindow = \"rolling:91d\"\nusd = 1",
            "`window` is",
        ),
        ("scope = \"host\"\nwindow = \"day\"", "needs `usd`"),
        (
            "scope = \"host\"\nwindow = \"day\"\nusd = 1\n[[budget]]\nscope = \"host\"\nwindow = \"day\"\nusd = 2",
            "a second budget",
        ),
    ] {
        let problem = only_problem(&format!("{CODER}[[budget]]\n{lines}\n"));
        assert!(problem.message.contains(said), "{lines}: {problem:?}");
        assert!(!problem.fix.is_empty());
    }
}

#[test]
fn a_model_without_a_price_and_prices_of_one_s_own_are_provided_for() {
    let config = parse(
        "[defaults]\nunpriced = \"ceiling\"\n[prices]\noverlay = \"/etc/guard/prices.toml\"",
        "guard.toml",
    )
    .unwrap();
    assert_eq!(config.unpriced, Unpriced::Ceiling);
    assert_eq!(
        config.prices.overlay.unwrap(),
        Path::new("/etc/guard/prices.toml")
    );
    assert_eq!(parse("", "guard.toml").unwrap().unpriced, Unpriced::Refuse);
}
