//! In: the container engine's Unix socket. Out: `Containers` told of every container, its labels, name and image. On
//! failure: the engine is asked again after a pause; what is known stays, and what is new is held back meanwhile.
//!
//! Docker's own API, which Podman speaks too.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary, EventMessage};
use bollard::query_parameters::{EventsOptions, ListContainersOptions};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::containers::{Containers, Described};
use crate::clock;
use crate::identity::Container;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a silent engine is asked whether it lives: a Unix socket does not tell.
const PING: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A session of this length was a good one: the next pause is short again.
const GOOD: Duration = Duration::from_secs(30);

/// Why a session with the engine ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Engine(#[from] Error),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("it closed the stream of events")]
    Closed,
}

/// Follows the engine for ever.
pub async fn follow(socket: PathBuf, containers: Arc<Containers>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let Err(why) = session(&socket, &containers).await;
        if started.elapsed() > GOOD {
            pause = FIRST_PAUSE;
        }
        tracing::warn!(%why, socket = %socket.display(), "the container engine is asked again in {pause:?}");
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

async fn session(
    socket: &std::path::Path,
    containers: &Arc<Containers>,
) -> Result<std::convert::Infallible, Ended> {
    let engine =
        Docker::connect_with_unix(&socket.to_string_lossy(), PATIENCE.as_secs(), API_DEFAULT_VERSION)?;
    let engine = within(engine.negotiate_version()).await?;
    // Events from before the list on: what happens in between is heard, some of it twice.
    let since = clock::system().now().as_second();
    let all = ListContainersOptions {
        all: true,
        ..ListContainersOptions::default()
    };
    let all = within(engine.list_containers(Some(all))).await?;
    tracing::info!(containers = all.len(), "the container engine is followed");
    let running: Vec<String> = all.iter().filter_map(|container| container.id.clone()).collect();
    containers.listed(all.into_iter().filter_map(summary).collect());
    for id in running {
        look_at(&engine, containers, &id);
    }
    let events = engine.events(Some(EventsOptions {
        since: Some(since.to_string()),
        filters: Some(filters()),
        ..EventsOptions::default()
    }));
    let mut events = std::pin::pin!(events);
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => heard(&engine, containers, event?),
                None => return Err(Ended::Closed),
            },
            _ = ping.tick() => {
                within(engine.ping()).await?;
            }
        }
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Ended> {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => Err(Ended::Silent),
    }
}

fn filters() -> HashMap<String, Vec<String>> {
    let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    HashMap::from([
        ("type".to_owned(), list(&["container"])),
        (
            "event".to_owned(),
            list(&["create", "start", "rename", "destroy"]),
        ),
    ])
}

fn heard(engine: &Docker, containers: &Arc<Containers>, event: EventMessage) {
    let Some((id, said)) = event.actor.and_then(|actor| Some((actor.id?, actor.attributes?))) else {
        return;
    };
    match event.action.as_deref() {
        // The event carries the labels, so that no question stands between it and the verdict.
        Some("create") => {
            containers.described(created(&id, said));
            look_at(engine, containers, &id);
        }
        Some("start") => look_at(engine, containers, &id),
        Some("rename") => containers.renamed(&id, said.get("name").map_or("", String::as_str)),
        Some("destroy") => containers.destroyed(&id),
        _ => {}
    }
}

/// Asks for what an event does not say: the kind of network, and the first process.
fn look_at(engine: &Docker, containers: &Arc<Containers>, id: &str) {
    let (engine, containers, id) = (engine.clone(), containers.clone(), id.to_owned());
    tokio::spawn(async move {
        match within(engine.inspect_container(&id, None)).await {
            Ok(seen) => {
                let pid = seen.state.as_ref().and_then(|state| state.pid);
                if let Some(described) = inspected(seen) {
                    containers.described(described);
                }
                if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0) {
                    containers.running(&id, pid);
                }
            }
            // Gone again already, most of the time.
            Err(why) => tracing::debug!(%why, container = id, "the engine does not describe a container"),
        }
    });
}

/// Name, image and every label of the container are the attributes of its event.
fn created(id: &str, mut said: HashMap<String, String>) -> Described {
    Described {
        about: Container {
            id: id.to_owned(),
            name: said.remove("name").unwrap_or_default(),
            image: said.remove("image").unwrap_or_default(),
        },
        labels: said,
        host_network: None,
    }
}

fn summary(container: ContainerSummary) -> Option<Described> {
    let name = container.names.and_then(|names| names.into_iter().next());
    Some(Described {
        about: Container {
            id: container.id?,
            name: plain(name),
            image: container.image.unwrap_or_default(),
        },
        labels: container.labels.unwrap_or_default(),
        host_network: container.host_config.map(|host| is_host(host.network_mode)),
    })
}

fn inspected(container: ContainerInspectResponse) -> Option<Described> {
    let config = container.config.unwrap_or_default();
    Some(Described {
        about: Container {
            id: container.id?,
            name: plain(container.name),
            image: config.image.unwrap_or_default(),
        },
        labels: config.labels.unwrap_or_default(),
        host_network: container.host_config.map(|host| is_host(host.network_mode)),
    })
}

fn plain(name: Option<String>) -> String {
    name.unwrap_or_default().trim_start_matches('/').to_owned()
}

fn is_host(mode: Option<String>) -> bool {
    mode.as_deref() == Some("host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_of_a_creation_says_all_that_a_verdict_needs() {
        let said = [("image", "busybox"), ("name", "web"), ("guard.agent", "coder")];
        let said = said.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let described = created("id", HashMap::from(said));
        assert_eq!(
            (described.about.name.as_str(), described.about.image.as_str()),
            ("web", "busybox")
        );
        assert_eq!(
            described.labels.get("guard.agent").map(String::as_str),
            Some("coder")
        );
        assert_eq!(described.labels.len(), 1);
    }
}
