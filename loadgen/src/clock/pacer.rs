//! Waiting for an exact instant inside the runtime, without the runtime's timers.
//!
//! Tokio's timers have a resolution of 1 ms. A timerfd armed with an absolute deadline wakes the
//! event loop through epoll at the deadline; where the CPU budget allows, the timer is set a
//! little early and the rest, like any wait that is as short, is spent yielding to other tasks, so
//! that no answer waits for the pacer.

use std::{io, os::fd::AsFd, time::Duration};

use nix::{
    sys::{
        time::TimeSpec,
        timerfd::{Expiration, TimerSetTimeFlags},
    },
    unistd,
};
use tokio::io::unix::AsyncFd;

use super::mono_ns;
use crate::sys::{self, Timer};

/// How long before the deadline a spinning pacer wakes: above the usual wake-up latency of a
/// virtual CPU (about 50 µs from idle).
pub(crate) const SPIN_NS: u64 = 80_000;

/// Waits below this are spent yielding whatever the CPU budget: to set the timer, to sleep and to
/// be woken takes about as much of a virtual CPU.
const NEAR_NS: u64 = 20_000;

/// One waiter for absolute instants of CLOCK_MONOTONIC.
pub(crate) struct Pacer {
    timer: AsyncFd<Timer>,
    armed: Option<u64>,
    spin: bool,
    spun_ns: u64,
}

impl Pacer {
    /// A pacer in the current runtime; `spin` allows it to burn up to [`SPIN_NS`] a wait, and
    /// not only [`NEAR_NS`].
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub(crate) fn new(spin: bool) -> io::Result<Self> {
        Ok(Self { timer: sys::timer()?, armed: None, spin, spun_ns: 0 })
    }

    /// CPU time spent on spinning so far.
    pub(crate) fn spun_ns(&self) -> u64 {
        self.spun_ns
    }

    /// Returns at `deadline` or as soon after it as the system allows, never before. May be
    /// dropped and called again with another deadline.
    pub(crate) async fn until(&mut self, deadline: u64) -> io::Result<()> {
        let near = if self.spin { SPIN_NS } else { NEAR_NS };
        let early = deadline.saturating_sub(near);
        if mono_ns() < early {
            self.sleep(if self.spin { early } else { deadline }).await?;
        }
        let from = mono_ns();
        let mut now = from;
        while now < deadline {
            tokio::task::yield_now().await;
            now = mono_ns();
        }
        self.spun_ns += now.saturating_sub(from);
        Ok(())
    }

    async fn sleep(&mut self, wake: u64) -> io::Result<()> {
        if self.armed != Some(wake) {
            // An absolute time of 0 would disarm the timer.
            let at = TimeSpec::from_duration(Duration::from_nanos(wake.max(1)));
            self.timer
                .get_ref()
                .0
                .set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            self.armed = Some(wake);
        }
        while mono_ns() < wake {
            let mut guard = self.timer.readable().await?;
            let mut count = [0; 8];
            match unistd::read(guard.get_inner().0.as_fd(), &mut count) {
                Ok(_) => self.armed = None,
                Err(nix::errno::Errno::EAGAIN) => guard.clear_ready(),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lags(spin: bool, waits: usize) -> Vec<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        super::super::remove_timer_slack();
        runtime.block_on(async {
            let mut pacer = Pacer::new(spin).unwrap();
            let start = mono_ns();
            let mut lags = Vec::new();
            for step in 1..=waits as u64 {
                let deadline = start + step * 700_000;
                pacer.until(deadline).await.unwrap();
                let now = mono_ns();
                assert!(now >= deadline, "never early");
                lags.push(now - deadline);
            }
            lags.sort_unstable();
            lags
        })
    }

    /// How late it wakes is printed, not judged: that depends on what else the machine does.
    #[test]
    fn never_wakes_early() {
        for spin in [false, true] {
            let lags = lags(spin, 300);
            let (p50, p99) = (lags[150], lags[297]);
            println!("pacer spin={spin}: lag p50 {} us, p99 {} us", p50 / 1_000, p99 / 1_000);
        }
    }

    #[test]
    fn an_abandoned_wait_can_be_replaced() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pacer = Pacer::new(false).unwrap();
            let now = mono_ns();
            tokio::select! {
                biased;
                _ = pacer.until(now + 3_600_000_000_000) => panic!("an hour is not over"),
                () = tokio::task::yield_now() => {}
            }
            pacer.until(mono_ns() + 1_000_000).await.unwrap();
            pacer.until(1).await.unwrap();
        });
    }
}
