//! Every key that `guard.toml` may hold: one table, read by the loader and printed into `docs/configuration.md`.

/// Whether a key does something in this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It works.
    Works,
    /// The feature is planned; of its values only this one, which means what Guard does anyway, is accepted.
    Only(&'static str),
    /// The feature is planned; the key is refused.
    Planned,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Section: empty for the top level; `provider` and `agent` are arrays of tables.
    pub section: &'static str,
    /// Name within its section.
    pub name: &'static str,
    /// Type and unit.
    pub form: &'static str,
    /// Value when the key is absent.
    pub default: &'static str,
    /// What it does.
    pub effect: &'static str,
    /// Whether it does it yet.
    pub status: Status,
}

const fn key(
    section: &'static str,
    name: &'static str,
    form: &'static str,
    default: &'static str,
    effect: &'static str,
) -> Key {
    Key {
        section,
        name,
        form,
        default,
        effect,
        status: Status::Works,
    }
}

impl Key {
    const fn only(self, value: &'static str) -> Self {
        self.status(Status::Only(value))
    }

    const fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }
}

/// The keys of a section.
pub fn of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

/// How a section is written in the file.
pub fn header(section: &str) -> String {
    match section {
        "" => "the top level".to_owned(),
        "provider" | "agent" | "alert" => format!("[[{section}]]"),
        "shared" => "[[budget]]".to_owned(),
        "host" | "defaults" | "ledger" | "prices" => format!("[{section}]"),
        inner => format!("`{inner}`"),
    }
}

/// Every key, in the order of the documentation.
#[rustfmt::skip] // one key, one paragraph: the table is read more often than it is formatted
pub const KEYS: &[Key] = &[
    key("", "host", "table", "defaults below", "The machine: where things are, and the overall mode."),
    key("", "defaults", "table", "defaults below", "Values for every agent that does not say otherwise."),
    key("", "provider", "array of tables", "none", "Overrides of built-in providers, and providers of one's own."),
    key("", "agent", "array of tables", "none", "The governed agents."),
    key("", "budget", "array of tables", "none", "Limits that several agents share: an owner's, a key's, a model's, the machine's."),
    key("", "alert", "array of tables", "none", "Where alerts go, beside the audit log."),
    key("", "prices", "table", "none", "What models cost, beside the tables that Guard has."),
    key("", "ledger", "table", "defaults below", "Where budgets are kept."),

    key("host", "cgroup_root", "absolute path", "`/sys/fs/cgroup`",
        "The programs attach to this cgroup; patterns in `match` are relative to it."),
    key("host", "state_dir", "absolute path", "`/var/lib/guard`",
        "The CA, the ledger, the audit log and the secret behind the placeholders."),
    key("host", "runtime_dir", "absolute path", "`/run/guard`", "The admin socket."),
    key("host", "bpffs", "absolute path", "`/sys/fs/bpf/guard`",
        "Pinned programs and maps, so that enforcement outlives the daemon."),
    key("host", "metrics", "loopback address and port", "`127.0.0.1:9477`",
        "`/metrics`, `/healthz` and `/readyz`. Only a loopback address is accepted."),
    key("host", "mode", "`enforce` or `observe`", "`enforce`",
        "`observe` changes no byte and refuses nothing that a rule refuses; it records what would have been refused. Requests that cannot be read are refused all the same."),
    key("host", "timezone", "IANA time zone name", "`UTC`",
        "The calendar of the hour, day, week and month windows."),
    key("host", "when_down", "`refuse` or `direct`", "`refuse`",
        "What governed processes get while Guard is down: nothing, or the network, unseen and unlimited, from five seconds after Guard stopped."),
    key("host", "unknown_when_down", "`refuse` or `direct`", "`refuse`",
        "The same for containers that were born while Guard is down, in a directory of containers' own."),
    key("host", "canary", "seconds, `\"1s\"` to `\"600s\"`", "`30s`",
        "How often a process of Guard's own, in a governed cgroup, tries every way out. `guard_enforcing` and `/readyz` follow what it saw."),
    key("host", "docker", "`unix:///absolute/path`",
        "`unix:///var/run/docker.sock` if an agent has a `container_label`, else none",
        "The engine that knows the containers' labels. Where one is set, a container whose `guard.agent` label names no agent is refused."),
    key("host", "container_cgroups", "list of paths", "`[\"/docker/*\", \"/system.slice/docker-*.scope\"]`",
        "Where the engine puts containers, below `host.cgroup_root`; wildcards in the last part only. Where that part is `*`, every child is a container, and one that is not identified yet is refused."),

    key("defaults", "budget", "array of budgets", "`[{ window = \"day\", usd = 10.0, soft = 0.8 }]`",
        "Budgets of every agent that has no `budget` of its own."),
    key("defaults", "unpriced", "`refuse` or `ceiling`", "`refuse`",
        "What happens to a call whose model has no known price: refused, or charged as the dearest model of its provider in each respect. With `ceiling`, a provider without any price is still refused."),

    key("budget", "scope", "`agent` or `session`", "`agent`",
        "`session`: one limit for each session label that clients send, inside each run. Labels are the client's word, so such a limit only narrows; calls without a label share one."),
    key("budget", "window", "`run`, `hour`, `day`, `week`, `month` or `rolling:LENGTH`", "required",
        "Over which time the limit counts. `hour` to `month` are calendar windows in `host.timezone`. `rolling:5h` is the last five hours at every moment (a whole number of `m`, `h` or `d`, at most 90 days), counted in sixty buckets: what was spent counts for at least that long and at most a sixtieth longer."),
    key("budget", "usd", "US dollars, at most twelve decimals", "one of three is required",
        "Hard limit: settled plus reserved money never passes it. Read exactly as written, not as a binary float."),
    key("budget", "tokens", "tokens, above 0", "one of three is required",
        "The same in tokens: all that is read and written, cached input and reasoning too. Reserved is what the body can hold at most, and the whole output cap."),
    key("budget", "calls", "calls, above 0", "one of three is required",
        "The same in calls: those that reached a provider, whatever it answered. A list of budgets may mix the three; a call is reserved in all of them or in none."),
    key("budget", "soft", "fraction of the limit, above 0 and at most 1", "none", "From here on Guard warns: once a window, in the log and as an audit record (`budget.soft`)."),
    key("budget", "on_soft", "table", "none", "What happens to calls from the soft limit on, beside the warning; in observe mode nothing."),

    key("budget.on_soft", "model", "name of a model", "none",
        "Calls go to this model of the same provider and format, where it is on the agent's list, has a price and can cost less. The record has `model` among its `rewrites`. Bodies that carry a checksum over themselves, and formats that name the model in the path, stay as they are."),
    key("budget.on_soft", "steer", "text of at most 1000 characters", "none",
        "Said to the model with each call, with what is used of the budget, behind the last message of the user or the last tool result (OpenAI chat and responses, Anthropic messages). The record has `steer` among its `rewrites`."),

    key("provider", "name", "name", "required",
        "A built-in provider to override, or the name of one of one's own."),
    key("provider", "hosts", "list of host names", "built-in; required for one's own",
        "Hosts whose TLS Guard terminates for this provider. For a built-in provider they are added to its own."),
    key("provider", "dialect", "name of a format", "built-in; `dialect` or `speaks` is required for one's own",
        "The wire format: one of those in `docs/providers.md`. Fixed for built-in providers."),
    key("provider", "speaks", "array of formats", "built-in; `dialect` or `speaks` is required for one's own",
        "Several formats, each below a path of its own. Fixed for built-in providers."),
    key("provider", "auth", "place of the key", "built-in; `bearer` for one's own",
        "`bearer`, `x-api-key`, `bearer-or-x-api-key`, `api-key`, `x-goog-api-key` or `aws` (see `docs/providers.md`). Fixed for built-in providers."),
    key("provider", "base_path", "path", "built-in; empty for one's own",
        "What stands before the dialect's own paths, e.g. `/openai`. Fixed for built-in providers."),
    key("provider", "keys", "array of keys", "none",
        "Real keys; the first one is used. Without one, only agents with `login = \"pass\"` can call."),
    key("provider", "connect_to", "IP address and port", "none",
        "Dial here instead of the original destination, e.g. a private gateway. Exempt from the address rules."),
    key("provider", "trust", "list of absolute paths", "none",
        "PEM files with roots that are trusted for this provider beside the public ones."),

    key("provider.speaks", "dialect", "name of a format", "required", "The wire format."),
    key("provider.speaks", "base_path", "path", "empty",
        "What stands before the format's own paths. A segment `*` stands for any one, `{model}` for one that names the model, `{region}` for one that names the region that serves the call."),

    key("provider.keys", "name", "name", "required", "Name of the key in the audit log; never the key itself."),
    key("provider.keys", "from", "source", "required",
        "`file:/absolute/path` (not readable by others), `credential:NAME` (systemd) or `env:NAME` (of the daemon). `vault:` is not available in this version."),

    key("agent", "name", "name", "required", "Unique. Lower-case letters, digits, `-`, `_` and `.`."),
    key("agent", "owner", "text", "required", "Who pays: every dollar has an owner."),
    key("agent", "match", "array of tables", "none",
        "What belongs to the agent. Without it, only `guard-agent run --agent NAME` starts it."),
    key("agent", "providers", "list of provider names", "required", "Providers that it may use."),
    key("agent", "models", "list of patterns", "every priced model of its providers",
        "Models that it may use; `*` and `?` are wildcards. An empty list allows none."),
    key("agent", "endpoints", "list of path patterns", "`[]`",
        "Further endpoints of its providers, beside inference, token counting and model lists. Calls there are not metered."),
    key("agent", "login", "`refuse` or `pass`", "`refuse`",
        "`pass` forwards the agent's own credential (for example an OAuth login) and meters it."),
    key("agent", "telemetry", "`refuse` or `pass`", "`refuse`",
        "Reports that an agent's client sends on its use to a provider's host (`docs/providers.md` lists the paths)."),
    key("agent", "websockets", "`meter` or `refuse`", "`meter`",
        "Whether its calls may also come over a WebSocket, where Guard reads the format (`docs/providers.md`). Where not, an upgrade is answered 426 and clients go on over HTTPS."),
    key("agent", "tools", "table", "every tool", "Which tools its requests may declare and its models may call."),
    key("agent", "caps", "table", "none", "Caps on one call and on concurrency."),
    key("agent", "retries", "table", "the defaults of its keys", "Limits on client retries."),
    key("agent", "loops", "table", "the defaults of its keys", "Multipliers that are stopped: loops, growth, bursts, failures in a row. A rule is a table; or a number, which trips there and warns at half of it; or `\"off\"`."),
    key("agent", "budget", "array of budgets", "`defaults.budget`", "Its budgets; at most one per window, scope and unit."),
    key("agent", "egress", "table", "all allowed", "Where else it may connect to."),

    key("agent.match", "cgroup", "cgroup pattern", "none",
        "Cgroup below `host.cgroup_root`, from `/`; `*` matches within one level, `**` any number of levels."),
    key("agent.match", "container_label", "`KEY=VALUE`", "none", "A container with exactly this label."),
    key("agent.match", "unit", "unit pattern", "none",
        "A systemd service, scope or slice, wherever it is: `coder@*.service`, `agents.slice`. What is in a matching slice is governed from its first system call; a unit in a slice of others as soon as its cgroup is seen, a few milliseconds, and what it had opened by then is cut. Units of user managers (`user@UID.service`) do not match: their cgroups are the user's own."),

    key("agent.tools", "allow", "list of patterns", "required; `[\"*\"]` beside `deny` or `arguments`",
        "Tools that may be declared in requests and called in replies: a function by its name, a built-in or server-side tool by its type (`web_search_20250305`), an MCP connector by its server (`mcp:HOST`)."),
    key("agent.tools", "deny", "list of patterns", "`[]`", "Tools that may not, whatever `allow` says."),
    key("agent.tools", "on_violation", "`strip` or `refuse`", "`strip`",
        "Remove a declaration that is not allowed from the request, or refuse the call."),
    key("agent.tools", "in_reply", "`replace`, `strip` or `refuse`", "`replace`",
        "What happens to a call in a reply whose tool is not allowed, was never declared, or whose arguments a rule denies. No byte of it reaches the agent: text that the model can read takes its place, it is taken out, or the reply ends there with an error (one that is not streamed has the status of a refusal then)."),
    key("agent.tools", "arguments", "array of tables", "`[]`",
        "Rules on the arguments of calls. A call that a rule is about is held back until it is complete."),

    key("agent.tools.arguments", "tool", "pattern", "required", "The tools that the rule is about."),
    key("agent.tools.arguments", "at", "JSON pointer", "all of the arguments",
        "Where in the arguments: `/command`, `/edits/0/path`. Every text at or below it is looked at; numbers and booleans as they are written."),
    key("agent.tools.arguments", "allow", "list of patterns", "none",
        "Every text there has to match one of these (or of `allow_regex`), and there has to be one. `*` stands for anything, `/` included; a pattern covers the whole text."),
    key("agent.tools.arguments", "allow_regex", "list of regular expressions", "none", "The same, found anywhere in the text."),
    key("agent.tools.arguments", "deny", "list of patterns", "none",
        "No text there may match one of these; it is also looked at with every run of white space as one space."),
    key("agent.tools.arguments", "deny_regex", "list of regular expressions", "none", "The same, found anywhere in the text. Expressions take linear time."),

    key("agent.caps", "output_tokens", "tokens, above 0", "none",
        "Output cap of one call. A larger one is lowered to it, a missing one set to it."),
    key("agent.caps", "in_flight", "calls, above 0", "1024", "Calls at the same time; never more than 1024."),
    key("agent.caps", "input_bytes", "bytes, above 0", "none",
        "Largest body of one inference call, decoded. A larger one is refused."),
    key("agent.caps", "run_timeout", "number and `s`, `m`, `h` or `d`", "none",
        "Longest life of a run by the clock: from its start with `guard-agent run`, else from its first call that this daemon saw. Calls after it are refused, and its streams end with the format's own last event."),
    key("agent.caps", "requests_per_minute", "calls, above 0", "none",
        "Calls in any minute. One more is told to wait (429)."),
    key("agent.caps", "tokens_per_minute", "tokens, above 0", "none",
        "Tokens in any minute: a quarter of the body's bytes plus the output cap when the call begins, the reported usage when it has ended."),

    key("agent.retries", "per_minute", "retries, 1 to 10000", "30",
        "Requests in any minute that try again what failed (the same body, or a client that says so). One more is told to wait (429)."),
    key("agent.retries", "per_body", "retries, 1 to 10000", "12",
        "Attempts at one and the same body after the first failed one, until none came for ten minutes. One more is refused."),

    key("agent.loops", "repeat", "rule, 2 to 30", "`{ warn = 5, trip = 10 }`",
        "The same tool with the same arguments and the same result, among the last 30 tool calls since the user spoke."),
    key("agent.loops", "similar", "rule, 2 to 30", "`{ warn = 10, trip = 20 }`",
        "The same tool with nearly the same arguments (but for digits, letter case and punctuation, or most words of a long text) and the same result, among the last 30."),
    key("agent.loops", "poll", "rule, 2 to 128", "`{ warn = 60, trip = 120 }`",
        "The same tool with the same arguments where the results change, where its name or command says that it waits, or where the calls are 20 seconds apart: polling, counted over the last 128."),
    key("agent.loops", "alternate", "rule, 2 to 64", "`{ warn = 4, trip = 8 }`",
        "Rounds of two to four calls in turn, each with the same arguments and the same result as in the round before."),
    key("agent.loops", "errors", "rule, 2 to 128", "`{ warn = 8, trip = 16 }`",
        "Replies of the model in a row whose tools all failed. Only the format's own flag trips (`is_error`); results that merely read like a failure warn."),
    key("agent.loops", "growth", "rule, tokens a call, 2 to 1000000", "`{ warn = 6000 }`",
        "Tokens of input that each call of a conversation adds to the one before, steadily over `growth_turns` calls."),
    key("agent.loops", "growth_turns", "calls, 3 to 64", "20", "Calls over which `growth` is measured."),
    key("agent.loops", "cache_misses", "rule, 2 to 10000", "`{ warn = 10 }`",
        "Calls of a conversation in a row, each over 4096 tokens and within five minutes of the last, that read less than a tenth from the prompt cache although the conversation has used one."),
    key("agent.loops", "parallel", "rule, 2 to 10000", "`{ warn = 32 }`",
        "Calls of one run at the same time, over all its conversations."),
    key("agent.loops", "failures", "rule, 2 to 10000", "`{ warn = 5, trip = 20 }`",
        "Calls of one run in a row that one provider failed; one that cost money counts twice. After a trip one call a minute is let through to try."),
    key("agent.loops", "on_warn", "`alert` or `steer`", "`alert`",
        "`steer` also tells the model, with each call from the warning on, what goes wrong and what to do instead (formats as in `on_soft.steer`)."),
    key("agent.loops", "on_trip", "`refuse` or `freeze`", "`refuse`",
        "`freeze` also freezes the run, until `guard-agent unfreeze`."),

    key("agent.loops.rule", "observe", "count", "none", "From here on the call's record has a finding."),
    key("agent.loops.rule", "warn", "count", "none", "From here on there is an alert too, once until the user speaks."),
    key("agent.loops.rule", "trip", "count", "none", "From here on the call is refused."),

    key("agent.egress", "default", "`allow` or `deny`", "`allow`",
        "What happens to destinations that are on neither list. The agent's providers are always reachable, through Guard."),
    key("agent.egress", "deny", "list of hosts and addresses", "`[]`",
        "Destinations refused, whatever else is written. A host (`*.internal`, `mail.example.com:25`) is compared with the name that the connection carries (SNI or `Host`), and with the names for which the agent's DNS answers gave it the address; addresses (`10.0.0.0/8`, `10.0.0.0/8:5432`, `[fd00::]/8:443`, `192.0.2.7`) with where it is going. A client can hide a name that it never looked up, but no address: to keep it from a host for good, deny the addresses, or set `default = \"deny\"`."),
    key("agent.egress", "allow", "list of hosts and addresses", "`[]`",
        "Destinations allowed that are not on `deny`. A connection that may pass for its name, or for the name that was looked up where its protocol has none, is dialled by Guard to where that name leads, as this host resolves it, and never to a private address that is not listed. Public resolvers over HTTPS or TLS pass only if they are listed here."),
    key("agent.egress", "loopback", "`own` or `deny`", "`own`",
        "Loopback of the agent's own network namespace: left alone, or refused; a resolver on it (port 53) is reachable all the same. With `default = \"deny\"` a listener that no governed process made is refused unless `allow` lists its address (`127.0.0.1:5432`) or `localhost`; otherwise it is reported."),
    key("agent.egress", "private", "`allow` or `deny`", "the value of `default`, and metadata services refused",
        "Private, shared and link-local networks that `allow` does not list by address. `allow`, written out, admits the metadata services of clouds (169.254.0.0/16 and others) too; it never admits what `default` or `deny` refuses."),
    key("agent.egress", "inbound", "`allow` or `deny`", "`allow`",
        "TCP connections from outside its network namespace. With `deny` none of its listeners answers them; over loopback they still do."),

    key("shared", "owner", "owner", "one of four is required", "Counts the calls of every agent of this owner."),
    key("shared", "key", "`PROVIDER/KEY`", "one of four is required", "Counts the calls with this key, by its name in `provider.keys`."),
    key("shared", "model", "pattern", "one of four is required", "Counts the calls to every model that the pattern covers, together."),
    key("shared", "scope", "`host`", "one of four is required", "Counts every call of every agent."),
    key("shared", "window", "as in a budget of an agent, but `run`", "required", "Over which time the limit counts."),
    key("shared", "usd", "US dollars, at most twelve decimals", "one of three is required", "Hard limit: settled plus reserved money never passes it."),
    key("shared", "tokens", "tokens, above 0", "one of three is required", "The same in tokens."),
    key("shared", "calls", "calls, above 0", "one of three is required", "The same in calls."),
    key("shared", "soft", "fraction of the limit, above 0 and at most 1", "none", "From here on Guard warns: once a window, in the log and as an audit record (`budget.soft`)."),
    key("shared", "on_soft", "as in a budget of an agent", "none", "What happens to calls from the soft limit on, beside the warning."),
    key("alert", "when", "list of patterns", "required",
        "Alerts: `budget.soft`, `budget.burn_rate` (gone within the hour at the rate of the last five minutes and of the last hour), `loop` (a rule of `loops` has come to its warning: circles, growth of the context, failures), `retries` (too many, refused), `retry.density` (more than half of the calls of ten minutes), `tool.churn` and `spend.spike` (five times as much in ten minutes as in those of the day before), `success.falls` (of the runs told of with `guard-agent outcome`, the last eight cost more and succeed less than those before), `finding`, `enforcement.unproven`, `enforcement.proven`, `kernel.repaired`, `worker.restarted`."),
    key("alert", "to", "`log`, `webhook:URL` or `slack:URL`", "required",
        "The daemon's log, or a POST in JSON: `{version, alert, agent, owner, message, time, id}`, or `{text}` as Slack and its kin take it. `https` only, but for this host. The URL is shown nowhere."),

    key("prices", "overlay", "absolute path", "none",
        "A table in the format of `guard-agent/src/llm/prices/table.toml`. Its rows are in force over all others, read at start and by `reload`."),

    key("ledger", "store", "`sqlite` or a PostgreSQL address", "`sqlite`",
        "SQLite in `host.state_dir`, or one budget over many hosts.").only("sqlite"),
];
