//! One helper thread that runs jobs: pure work over memory the job owns.
//!
//! A job is moved to the thread, run, and moved back with its result inside; a write to an event
//! counter wakes the loop that waits in the ring. Queues are bounded and made at start, so nothing
//! here allocates while jobs flow. Jobs finish in the order in which they were submitted.
//! Not covered: which jobs there are and when (the core decides).

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::socket::EventCounter;

/// What both threads share.
struct Shared<J> {
    state: Mutex<State<J>>,
    /// Signalled when a job is pending or the thread shall end.
    wake: Condvar,
    done_event: EventCounter,
}

struct State<J> {
    pending: VecDeque<J>,
    done: VecDeque<J>,
    stop: bool,
    /// The thread has reached its loop: from here on it does not allocate.
    ready: bool,
}

impl<J> Shared<J> {
    /// The state; it is consistent between any two operations on the queues.
    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread and its queues. Dropping it lets the running job finish, and drops the waiting ones.
pub struct Worker<J: Send + 'static> {
    shared: Arc<Shared<J>>,
    thread: Option<JoinHandle<()>>,
    jobs_max: usize,
    /// Submitted and not yet taken back.
    jobs_in_flight: usize,
}

impl<J: Send + 'static> Worker<J> {
    /// Starts the thread for at most `jobs_max` jobs in flight, each run by `run`. Returns when the
    /// thread is at its loop.
    ///
    /// # Errors
    ///
    /// If the system refuses the event counter or the thread.
    ///
    /// # Panics
    ///
    /// If `jobs_max` is zero.
    pub fn new(jobs_max: usize, run: fn(&mut J)) -> io::Result<Worker<J>> {
        assert!(jobs_max > 0);
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                pending: VecDeque::with_capacity(jobs_max),
                done: VecDeque::with_capacity(jobs_max),
                stop: false,
                ready: false,
            }),
            wake: Condvar::new(),
            done_event: EventCounter::new()?,
        });
        let shared_of_thread = Arc::clone(&shared);
        // Not frozen: the thread is started before.
        let thread = std::thread::Builder::new()
            .name("florin-worker".to_owned())
            .spawn(move || work(&shared_of_thread, run))?;
        let mut state = shared.state();
        while !state.ready {
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        Ok(Worker { shared, thread: Some(thread), jobs_max, jobs_in_flight: 0 })
    }

    /// Hands a job to the thread.
    ///
    /// # Panics
    ///
    /// If there are as many jobs in flight as there may be.
    pub fn submit(&mut self, job: J) {
        assert!(self.jobs_in_flight < self.jobs_max, "more jobs than the worker has room for");
        self.jobs_in_flight += 1;
        self.shared.state().pending.push_back(job);
        self.shared.wake.notify_one();
    }

    /// Takes back a job that is done; `None` if there is none now.
    ///
    /// # Panics
    ///
    /// If more jobs are done than were submitted.
    pub fn take_done(&mut self) -> Option<J> {
        let job = self.shared.state().done.pop_front()?;
        assert!(self.jobs_in_flight > 0);
        self.jobs_in_flight -= 1;
        Some(job)
    }

    /// Whether another job may be submitted.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.jobs_in_flight < self.jobs_max
    }

    /// Jobs submitted and not yet taken back.
    #[must_use]
    pub fn jobs_in_flight(&self) -> usize {
        self.jobs_in_flight
    }

    /// Becomes readable when a job is done. Reset it before [`Worker::take_done`].
    #[must_use]
    pub fn done_event(&self) -> &EventCounter {
        &self.shared.done_event
    }
}

impl<J: Send + 'static> Drop for Worker<J> {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.wake.notify_all();
        let Some(thread) = self.thread.take() else { return };
        let result = thread.join();
        assert!(result.is_ok() || std::thread::panicking(), "the worker panicked");
    }
}

/// The thread: takes jobs one after another until told to stop.
/// How much the helper gives way: its work has time until the next bar ends, a batch being executed
/// has a client waiting. On a machine with two processors they compete with the client's own.
const NICENESS: i32 = 10;

/// Lets the thread that serves, and the clients' threads, go first. A hint: it may be refused.
#[allow(unsafe_code)]
fn yield_to_serving() {
    // SAFETY: the call takes numbers only; on Linux 0 stands for the calling thread.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

fn work<J>(shared: &Shared<J>, run: fn(&mut J)) {
    yield_to_serving();
    let mut state = shared.state();
    state.ready = true;
    shared.wake.notify_all();
    loop {
        if state.stop {
            return;
        }
        let Some(mut job) = state.pending.pop_front() else {
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(state);
        run(&mut job);
        state = shared.state();
        assert!(state.done.len() < state.done.capacity(), "the queue of done jobs never grows");
        state.done.push_back(job);
        // If that fails, the loop finds the job with its next tick.
        shared.done_event.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::allocator::tests::allocations_of_thread;
    use std::time::Duration;

    struct Double {
        value: u64,
        allocations: u64,
    }

    fn double(job: &mut Double) {
        job.value *= 2;
        job.allocations = allocations_of_thread();
    }

    fn wait_done(worker: &mut Worker<Double>) -> Double {
        for _ in 0..10_000 {
            if let Some(job) = worker.take_done() {
                return job;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the job never finished");
    }

    /// Goal: jobs come back in order with their results, and the counter tells.
    #[test]
    fn jobs_return() {
        let mut worker = Worker::new(3, double).unwrap();
        assert!(!worker.done_event().reset());
        for value in 0..3 {
            assert!(worker.has_room());
            worker.submit(Double { value, allocations: 0 });
        }
        assert!(!worker.has_room());
        for value in 0..3 {
            assert_eq!(wait_done(&mut worker).value, value * 2);
        }
        assert_eq!(worker.jobs_in_flight(), 0);
        assert!(worker.take_done().is_none());
        // Counted before the last job could be taken or very soon after.
        for _ in 0..10_000 {
            if worker.done_event().reset() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the event counter never told");
    }

    /// Goal: neither thread allocates while jobs flow, sleeping and waking included.
    #[test]
    fn no_allocation() {
        let mut worker = Worker::new(2, double).unwrap();
        let before = allocations_of_thread();
        let mut of_thread = Vec::with_capacity(50);
        for value in 0..50 {
            worker.submit(Double { value, allocations: 0 });
            of_thread.push(wait_done(&mut worker).allocations);
            let _ = worker.done_event().reset();
        }
        assert_eq!(allocations_of_thread(), before + 1, "the vector of this test");
        assert_eq!(of_thread.first(), of_thread.last());
    }

    /// Goal: one job too many is a broken invariant.
    #[test]
    #[should_panic(expected = "more jobs than the worker has room for")]
    fn too_many() {
        let mut worker = Worker::new(1, double).unwrap();
        worker.submit(Double { value: 1, allocations: 0 });
        worker.submit(Double { value: 2, allocations: 0 });
    }

    /// Goal: dropping the worker with jobs waiting ends the thread.
    #[test]
    fn drop_with_jobs() {
        let mut worker = Worker::new(8, double).unwrap();
        for value in 0..8 {
            worker.submit(Double { value, allocations: 0 });
        }
        let shared = Arc::clone(&worker.shared);
        drop(worker);
        assert_eq!(Arc::strong_count(&shared), 1);
    }
}
