//! Opens the connections, and opens them again when one breaks.

use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::lane::{Lane, Lanes};
use crate::{Link, ffi};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use virt::connect::Connect;

/// Seconds between keepalive messages, and how many may stay unanswered.
const KEEPALIVE: (i32, u32) = (5, 3);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Opening a connection to a libvirtd that hangs must not last for ever.
const OPEN_DEADLINE: Duration = Duration::from_secs(20);

/// Keeps the connections open until the receiver of events is gone.
pub(crate) async fn keep(
    lanes: Arc<Lanes>,
    uri: String,
    events: mpsc::UnboundedSender<Event>,
    link: watch::Sender<Link>,
) {
    let mut pause = FIRST_PAUSE;
    while !events.is_closed() {
        let (breaks, mut broken) = mpsc::unbounded_channel();
        match open(&lanes, &uri, &breaks).await {
            Err(error) => {
                link.send_replace(Link::Down(error.message));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Ok(connections) => {
                pause = FIRST_PAUSE;
                lanes.set(Some(connections));
                link.send_replace(Link::Up);
                let _ = events.send(Event::Connected);
                let why = forward(&mut broken, &events).await;
                lanes.set(None);
                link.send_replace(Link::Down(why.clone()));
                let _ = events.send(Event::Disconnected(why));
            }
        }
    }
}

/// Passes events on until a connection breaks.
async fn forward(from: &mut mpsc::UnboundedReceiver<Event>, to: &mpsc::UnboundedSender<Event>) -> String {
    loop {
        tokio::select! {
            () = to.closed() => return "the agent is stopping".into(),
            event = from.recv() => match event {
                Some(Event::Disconnected(why)) => return why,
                Some(event) => drop(to.send(event)),
                None => return "libvirt dropped the connection".into(),
            }
        }
    }
}

/// Opens all connections and registers for events on the first, before anything is listed.
async fn open(lanes: &Lanes, uri: &str, events: &mpsc::UnboundedSender<Event>) -> Result<Vec<Connect>> {
    const ACT: &str = "connect";
    let (uri, events, lanes) = (uri.to_owned(), events.clone(), lanes.lanes().collect::<Vec<_>>());
    let work = tokio::task::spawn_blocking(move || {
        let mut connections = Vec::new();
        for lane in lanes {
            let connect = Connect::open(Some(&uri))?;
            // Drivers within this process have no peer to keep alive.
            let _ = connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1);
            match lane {
                Lane::List => ffi::register(&connect, &events)?,
                Lane::Looks | Lane::Steps | Lane::Agents | Lane::Jobs => ffi::on_break(&connect, &events),
            }
            connections.push(connect);
        }
        Ok::<_, virt::error::Error>(connections)
    });
    match tokio::time::timeout(OPEN_DEADLINE, work).await {
        Ok(Ok(result)) => result.map_err(|error| Error::of(ACT, &error)),
        Ok(Err(_)) => Err(Error::new(ACT, Kind::Other, "the call panicked")),
        Err(_) => Err(Error::new(ACT, Kind::TimedOut, "libvirtd accepts the connection and does not answer")),
    }
}
