//! The unsafe calls of this program.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use tokio::io::{Interest, unix::AsyncFd};

/// A timerfd, with the raw descriptor that the runtime's registration asks for.
pub(crate) struct Timer(pub(crate) TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A timer on CLOCK_MONOTONIC whose expiry wakes the current runtime.
///
/// # Errors
/// If the system has no descriptor left.
#[expect(unsafe_code, reason = "the registration takes a raw descriptor")]
pub(crate) fn timer() -> io::Result<AsyncFd<Timer>> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = Timer(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?);
    // SAFETY: the descriptor was just opened and `Timer` owns it; `Timer` never replaces or closes
    // it and always gives the same one, and it is moved into the registration, which so drops it
    // only after it has deregistered it.
    let registered = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Lets every other thread go first that wants the calling thread's CPU: it still gets a tenth of
/// what they leave each other.
#[expect(unsafe_code, reason = "no safe wrapper exists")]
pub(crate) fn go_behind() {
    // SAFETY: the call takes numbers alone; 0 names the calling thread (setpriority(2), "C
    // library/kernel differences"). Raising the own value is never refused.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, BEHIND) };
}

/// A nice value of a tenth of the usual weight.
const BEHIND: libc::c_int = 10;

/// Largest error of the wall clock, as the kernel states it: 16 s where nothing keeps it right.
#[expect(unsafe_code, reason = "no safe wrapper exists")]
pub(crate) fn wall_clock_error_ns() -> u64 {
    // SAFETY: the structure is plain numbers, for which all zeroes are valid.
    let mut time: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: with `modes` 0 the call only fills the structure in, which lives longer than it.
    unsafe { libc::adjtimex(&raw mut time) };
    // Refused by a container's filter it stays 0: then nothing is known.
    match u64::try_from(time.maxerror) {
        Ok(0) | Err(_) => 16_000_000_000,
        Ok(micros) => micros.saturating_mul(1_000),
    }
}

/// Gives memory that nothing uses any more back to the system. What a thread has used stays with
/// its part of the heap otherwise, even after its end.
#[expect(unsafe_code, reason = "no safe wrapper exists")]
pub(crate) fn give_memory_back() {
    // SAFETY: the call takes a number alone and may be made at any time from any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Segments of a TCP connection since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segments {
    /// Sent, bare acknowledgements included.
    pub(crate) sent: u64,
    /// Received with data in them.
    pub(crate) brought: u64,
    /// Received, bare acknowledgements included.
    #[cfg(test)]
    pub(crate) received: u64,
}

/// The segments of a connection so far (TCP_INFO, linux/tcp.h: `tcpi_segs_out` and
/// `tcpi_data_segs_in`, since Linux 4.6); `None` where the system does not say.
#[expect(unsafe_code, reason = "no safe wrapper exists")]
pub(crate) fn segments(tcp: &impl AsFd) -> Option<Segments> {
    // SAFETY: the structure is plain numbers, for which all zeroes are valid.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the call fills in at most `length` bytes of the structure and says how many; both
    // live longer than it.
    let code = unsafe {
        libc::getsockopt(
            tcp.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    let end = std::mem::offset_of!(libc::tcp_info, tcpi_data_segs_in) + size_of::<u32>();
    let known = code == 0 && usize::try_from(length).is_ok_and(|length| length >= end);
    known.then(|| Segments {
        sent: info.tcpi_segs_out.into(),
        brought: info.tcpi_data_segs_in.into(),
        #[cfg(test)]
        received: info.tcpi_segs_in.into(),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_states_an_error_of_the_wall_clock() {
        let error = super::wall_clock_error_ns();
        assert!((1..=16_000_000_000).contains(&error), "{error}");
    }
}
