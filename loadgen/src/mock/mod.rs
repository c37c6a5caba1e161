//! `aifb-loadgen mock`: a server with a known truth.
//!
//! It answers on a schedule that is fixed when the request is complete (and, where the server has
//! a capacity, when its service begins): event k is due `ttft + k · itl` later, and carries when
//! it was due and when it was sent (CLOCK_MONOTONIC), so that a client's figures can be compared
//! with what happened.
//!
//! `server` decides what the answer is, with the help of a `protocol`; the answer is a `script`
//! of bytes and their times; `play` plays it into `http1` or `http2`.

mod alarm;
mod fault;
mod gate;
mod http1;
mod http2;
mod options;
mod play;
mod protocol;
mod script;
mod server;

use std::{io::Write, rc::Rc};

use aifb_schema::names::exit;

pub(crate) use fault::FaultRule;
pub(crate) use options::Options;
pub(crate) use server::Freeze;

use crate::{clock, error::Fatal};
use alarm::Alarms;
use server::Server;

/// Connections that wait to be accepted: many clients may connect at one instant.
const BACKLOG: u32 = 4096;

/// Serves until it is ended by a signal.
///
/// # Errors
/// If it cannot listen.
pub(crate) fn serve(options: &Options) -> Result<i32, Fatal> {
    if options.list_faults {
        return std::io::stdout()
            .write_all(fault::list().as_bytes())
            .map(|()| exit::OK)
            .map_err(|error| Fatal::usage(format!("writing to standard output: {error}")));
    }
    clock::remove_timer_slack();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(|error| Fatal::loadgen(format!("starting the runtime: {error}")))?;
    runtime.block_on(accept(options))
}

async fn accept(options: &Options) -> Result<i32, Fatal> {
    let fail =
        |error: std::io::Error| Fatal::usage(format!("listening on '{}': {error}", options.listen));
    let socket = if options.listen.is_ipv4() {
        tokio::net::TcpSocket::new_v4()
    } else {
        tokio::net::TcpSocket::new_v6()
    };
    let socket = socket.map_err(fail)?;
    socket.set_reuseaddr(true).map_err(fail)?;
    socket.bind(options.listen).map_err(fail)?;
    let listener = socket.listen(BACKLOG).map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on http://{address}")
        .and_then(|()| stdout.flush())
        .map_err(fail)?;
    let alarms = Alarms::start().map_err(fail)?;
    let server = Rc::new(Server::new(options.clone(), alarms));
    loop {
        match listener.accept().await {
            Ok((mut stream, _)) => {
                let server = Rc::clone(&server);
                tokio::task::spawn_local(async move {
                    // An error of a connection is its peer's business.
                    let _ignored = stream.set_nodelay(true);
                    match http2::speaks(&stream).await {
                        Ok(true) => http2::talk(server, stream).await,
                        Ok(false) => {
                            let _ignored = http1::talk(&server, &mut stream).await;
                        }
                        Err(_) => {}
                    }
                });
            }
            // Out of descriptors: wait until a connection has ended.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}
