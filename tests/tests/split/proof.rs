//! Enforcement is proven, not assumed: what is switched off is noticed, and what is taken away is put back.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_agent::kernel::lab::{Countermeasure, tamper};
use guard_tests::lab::Lab;

const PINS: &str = "/sys/fs/bpf/guard";
const QUICK: &str = "canary = \"1s\"";

/// Waits until `guard_enforcing` says so; gives what `status` says then.
fn enforcing(lab: &Lab, wanted: bool) -> Result<serde_json::Value> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if lab.metrics()?.count("guard_enforcing", &[])? == u64::from(wanted) {
            let status = lab.status()?;
            if status["enforcing"] == wanted {
                return Ok(status);
            }
        }
        ensure!(
            Instant::now() < deadline,
            "enforcing never was {wanted}: {}",
            lab.daemon_said()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_counter_measure_that_is_switched_off_is_noticed_within_seconds() -> Result<()> {
    let lab = Lab::builder().host(QUICK).start()?;
    enforcing(&lab, true)?;
    assert!(lab.is_ready());
    for (off, door) in [
        (vec![Countermeasure::Redirect], "TCP over IPv"),
        (
            vec![Countermeasure::DatagramSend, Countermeasure::Egress],
            "UDP over IPv",
        ),
        (vec![Countermeasure::DatagramConnect], "connected UDP"),
        (vec![Countermeasure::Multipath], "Multipath TCP"),
        (vec![Countermeasure::SocketKind], "a raw socket"),
        (vec![Countermeasure::DeniedPort], "the metrics port"),
        (vec![Countermeasure::ProxyPort], "the listener's own port"),
        (vec![Countermeasure::BindPort], "binding the listener's port"),
    ] {
        lab.mounts().run(|| Ok(tamper(Path::new(PINS), &off)?))?;
        let status = enforcing(&lab, false)?;
        let why = status["not_ready"].as_str().context("no reason")?;
        ensure!(why.contains("canary") && why.contains(door), "{off:?}: {why}");
        assert!(!lab.is_ready(), "{off:?}");
        lab.mounts().run(|| Ok(tamper(Path::new(PINS), &[])?))?;
        enforcing(&lab, true)?;
        assert!(lab.is_ready(), "{off:?}");
    }
    let audit = lab.audit()?;
    for alert in ["enforcement.unproven", "enforcement.proven"] {
        let found = audit.iter().filter(|record| record["alert"] == alert).count();
        assert!(found >= 8, "{alert}: {found}");
    }
    // The canary's own attempts are nobody's.
    assert!(
        audit
            .iter()
            .all(|record| record["kind"] != "kernel" && record["kind"] != "connection")
    );
    Ok(())
}

#[test]
fn a_canary_that_cannot_fly_proves_nothing() -> Result<()> {
    let lab = Lab::builder().host(QUICK).start()?;
    enforcing(&lab, true)?;
    let slice = lab.cgroup_root().path().join("guard.slice");
    fs::write(slice.join("cgroup.max.descendants"), "0")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    // It may be inside at the moment.
    while fs::remove_dir(slice.join("CANARY")).is_err() {
        ensure!(Instant::now() < deadline, "it stays inside");
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = enforcing(&lab, false)?;
    let why = status["not_ready"].as_str().context("no reason")?;
    assert!(why.contains("cannot fly"), "{why}");
    fs::write(slice.join("cgroup.max.descendants"), "max")?;
    enforcing(&lab, true)?;
    Ok(())
}

#[test]
fn what_other_software_takes_away_is_put_back_within_seconds() -> Result<()> {
    let lab = Lab::builder().start()?;
    enforcing(&lab, true)?;
    let links = lab.mounts().run(|| {
        let version = fs::read_dir(PINS)?.next().context("no pins")??.path();
        Ok(version.join("links"))
    })?;
    let egress = format!("fw_egress_{}", lab.coder().cgroup().id()?);
    let repairs = |count: u64| -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while lab.metrics()?.count("guard_repairs_total", &[])? < count {
            ensure!(Instant::now() < deadline, "not repaired: {}", lab.daemon_said());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    };
    // Unpinned, which ends a link that nobody else holds.
    lab.mounts()
        .run(|| Ok(fs::remove_file(links.join("fw_connect4"))?))?;
    repairs(1)?;
    // Detached for good, with the pin left in place.
    lab.mounts().run(|| Ok(detach(&links.join("fw_connect6"))?))?;
    repairs(2)?;
    // The second line of one agent.
    lab.mounts().run(|| Ok(fs::remove_file(links.join(&egress))?))?;
    repairs(3)?;
    let back = lab.mounts().run(|| {
        let all = ["fw_connect4", "fw_connect6", &egress];
        Ok(all.iter().all(|name| links.join(name).exists()))
    })?;
    assert!(back, "the pins are back");
    enforcing(&lab, true)?;
    assert_eq!(
        lab.coder().call("openai --model gpt-5 --max-tokens 100")?["ok"],
        true
    );
    let audit = lab.audit()?;
    let recorded = audit.iter().filter(|record| record["alert"] == "kernel.repaired");
    assert_eq!(recorded.count(), 3, "{audit:#?}");
    Ok(())
}

/// `bpf(BPF_LINK_DETACH)` on a pinned link.
#[allow(unsafe_code, reason = "bpf(2) has no safe wrapper")]
fn detach(pin: &Path) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    const OBJ_GET: libc::c_long = 7;
    const LINK_DETACH: libc::c_long = 34;
    let path = std::ffi::CString::new(pin.as_os_str().as_bytes())?;
    let mut get = [0_u64; 16];
    get[0] = path.as_ptr() as u64;
    // SAFETY: the attributes are longer than any command reads, and the path lives until the call is over.
    let link = unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET, get.as_mut_ptr(), size_of_val(&get)) };
    if link < 0 {
        return Err(std::io::Error::last_os_error());
    }
    let mut detach = [0_u64; 16];
    detach[0] = link.cast_unsigned();
    // SAFETY: as above.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            LINK_DETACH,
            detach.as_mut_ptr(),
            size_of_val(&detach),
        )
    };
    let outcome = if done < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(())
    };
    // SAFETY: the descriptor is ours.
    unsafe { libc::close(i32::try_from(link).unwrap_or(-1)) };
    outcome
}
