//! Connections: how many, for how long, and who makes room.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore};

use super::Limits;
use super::body::{Bodies, read_body};
use super::patience::Patient;
use super::routes::Failure;

/// What a client is told for whom there is no room. Written before a request is read, so by hand.
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 52\r\n\
Connection: close\r\n\r\n{\"error\":\"too many requests at once; try again soon\"}";

/// How long a client for whom there is no room may take to read that.
const FAREWELL: Duration = Duration::from_secs(1);
/// How many of them may at a time.
const FAREWELLS: usize = 64;

/// The connections of one listener.
pub(super) struct Connections {
    limits: Limits,
    bodies: Arc<Bodies>,
    open: Arc<Mutex<Open>>,
    /// Who may linger to be told that there is no room; the rest of a flood is just closed.
    farewells: Arc<Semaphore>,
}

/// Connections by age: the first is the oldest.
#[derive(Default)]
struct Open {
    clients: BTreeMap<u64, Arc<Client>>,
    next: u64,
}

/// One connection.
pub(super) struct Client {
    phase: Mutex<Phase>,
    dismissed: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has asked nothing yet, or is being asked for the rest of its request.
    Waiting,
    /// Its request is being carried out.
    Working,
    /// It made room for another.
    Dismissed,
}

impl Connections {
    /// None yet.
    pub(super) fn new(limits: Limits) -> Self {
        let farewells = Arc::new(Semaphore::new(FAREWELLS));
        Self {
            farewells,
            limits,
            bodies: Bodies::new(limits),
            open: Arc::default(),
        }
    }

    /// The life of a new connection.
    pub(super) fn admit<S>(&self, stream: S, router: Router) -> impl Future<Output = ()> + Send + 'static
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut stream = Patient::new(stream, self.limits.stalled_answer);
        let place = self.place();
        let (limits, bodies) = (self.limits, self.bodies.clone());
        let farewell = self.farewells.clone().try_acquire_owned();
        async move {
            let Some(place) = place else {
                // It may not even read this.
                let _ = tokio::time::timeout(FAREWELL, turn_away(&mut stream, farewell.is_ok())).await;
                return;
            };
            drop(farewell);
            tokio::select! {
                () = converse(stream, router, limits, bodies, place.client.clone()) => {}
                () = place.client.dismissed.notified() => {}
            }
        }
    }

    /// Ends every connection that is not in the middle of a request.
    pub(super) fn dismiss_waiting(&self) {
        for client in lock(&self.open).clients.values() {
            client.dismiss();
        }
    }

    fn place(&self) -> Option<Place> {
        let mut open = lock(&self.open);
        if open.clients.len() >= self.limits.connections {
            let waiting = open
                .clients
                .iter()
                .find(|(_, client)| client.dismiss())
                .map(|(&id, _)| id)?;
            open.clients.remove(&waiting);
        }
        let id = open.next;
        open.next += 1;
        let client = Arc::new(Client {
            phase: Mutex::new(Phase::Waiting),
            dismissed: Notify::new(),
        });
        open.clients.insert(id, client.clone());
        Some(Place {
            id,
            client,
            open: self.open.clone(),
        })
    }
}

/// A place among the connections, given back when the connection ends.
struct Place {
    id: u64,
    client: Arc<Client>,
    open: Arc<Mutex<Open>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.open).clients.remove(&self.id);
    }
}

impl Client {
    /// Makes a waiting client leave; a working one stays.
    fn dismiss(&self) -> bool {
        let mut phase = lock(&self.phase);
        if *phase == Phase::Working {
            return false;
        }
        *phase = Phase::Dismissed;
        self.dismissed.notify_one();
        true
    }

    /// From here to [`Client::end`] the client is safe from dismissal; no if it came too late.
    fn begin(&self) -> bool {
        let mut phase = lock(&self.phase);
        let waiting = *phase == Phase::Waiting;
        if waiting {
            *phase = Phase::Working;
        }
        waiting
    }

    fn end(&self) {
        *lock(&self.phase) = Phase::Waiting;
    }
}

/// Says that there is no room and listens until the client has gone: one that is still sending when the connection
/// closes sees a reset instead of the answer.
async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut Patient<S>, politely: bool) -> std::io::Result<()> {
    if politely {
        stream.write_all(NO_ROOM).await?;
        stream.shutdown().await?;
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
    }
    Ok(())
}

async fn converse<S>(stream: S, router: Router, limits: Limits, bodies: Arc<Bodies>, client: Arc<Client>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        let (router, bodies, client) = (router.clone(), bodies.clone(), client.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(request, router, limits, bodies, client).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a client was cut off");
    }
}

async fn answer(
    request: Request<Incoming>,
    router: TowerToHyperService<Router>,
    limits: Limits,
    bodies: Arc<Bodies>,
    client: Arc<Client>,
) -> Response<axum::body::Body> {
    let (request, _held) = match read_body(request, limits, &bodies).await {
        Ok(whole) => whole,
        Err(failure) => return failure.into_response(),
    };
    if !client.begin() {
        return Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many requests at once; try again soon",
        )
        .into_response();
    }
    let response = match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    client.end();
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
