//! An owner who would rather have calls unseen than refused while Guard is down.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use guard_tests::lab::Lab;

const CALL: &str = "openai --model gpt-5 --max-tokens 1000 --retries 0";
/// Opens a connection to the provider, waits for its end, and says how it came.
const HOLD: &str = "import errno, socket
s = socket.create_connection(('203.0.113.10', 443)); s.settimeout(60); print('open', flush=True)
try: print('closed' if s.recv(1) == b'' else 'spoken to')
except OSError as error: print(errno.errorcode.get(error.errno, error))";

fn curl(lab: &Lab) -> Result<i32> {
    let arguments = ["-sSk", "-m", "5", "https://api.openai.com/v1/models"];
    Ok(lab.coder().spawn("curl").args(arguments).run()?.code())
}

#[test]
fn governed_processes_go_direct_while_guard_is_down_if_their_owner_says_so_and_no_longer() -> Result<()> {
    let lab = Lab::builder().host("when_down = \"direct\"\n").start()?;
    assert_eq!(lab.coder().call(CALL)?["ok"], true);
    assert_eq!(lab.calls(1)?.len(), 1);
    lab.kill_daemon()?;
    assert_eq!(curl(&lab)?, 7, "not before the heartbeat is stale");
    let deadline = Instant::now() + Duration::from_secs(30);
    while curl(&lab)? == 7 {
        ensure!(Instant::now() < deadline, "governed calls are refused for ever");
    }
    let before = lab.openai().connections();
    assert_eq!(curl(&lab)?, 0, "direct");
    assert_eq!(lab.openai().connections(), before + 1);
    let mut held = lab.coder().spawn("python3").args(["-c", HOLD]).start()?;
    assert_eq!(held.line()?, "open");

    lab.start_daemon()?;
    assert_eq!(held.line()?, "ECONNABORTED", "what went direct is cut");
    assert_eq!(lab.coder().call(CALL)?["ok"], true);
    assert_eq!(lab.calls(2)?.len(), 2, "and calls are seen again");
    Ok(())
}
