//! The result of anything that may need a page which is not in memory.
//!
//! There are no callbacks: whoever gets [`Fetch::Wait`] calls the same function again after the
//! next disk completion. Such functions are restartable and cheap to call again.

/// A value, or the advice to ask again after the next disk completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fetch<T> {
    /// The value.
    Ready(T),
    /// Reads have been or will be requested; call the same function again later.
    Wait,
}

impl<T> Fetch<T> {
    /// Whether the value is there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self, Fetch::Ready(_))
    }

    /// Whether the value is not there yet.
    #[must_use]
    pub fn is_wait(&self) -> bool {
        matches!(self, Fetch::Wait)
    }

    /// The value, if it is there.
    #[must_use]
    pub fn ready(self) -> Option<T> {
        match self {
            Fetch::Ready(value) => Some(value),
            Fetch::Wait => None,
        }
    }

    /// The same with the value replaced by what `change` makes of it.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Fetch<U> {
        match self {
            Fetch::Ready(value) => Fetch::Ready(change(value)),
            Fetch::Wait => Fetch::Wait,
        }
    }
}

/// The value of a [`Fetch`], or a return of `Fetch::Wait` from the surrounding function.
#[macro_export]
macro_rules! ready {
    ($fetch:expr) => {
        match $fetch {
            $crate::storage::fetch::Fetch::Ready(value) => value,
            $crate::storage::fetch::Fetch::Wait => return $crate::storage::fetch::Fetch::Wait,
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(left: Fetch<u32>, right: Fetch<u32>) -> Fetch<u32> {
        Fetch::Ready(ready!(left) + ready!(right))
    }

    /// Goal: the macro yields values and passes on the need to wait.
    #[test]
    fn ready_or_wait() {
        assert_eq!(add(Fetch::Ready(1), Fetch::Ready(2)), Fetch::Ready(3));
        assert!(add(Fetch::Ready(1), Fetch::Wait).is_wait());
        assert_eq!(Fetch::Ready(2).map(|value| value * 2).ready(), Some(4));
        assert!(!Fetch::<u32>::Wait.is_ready());
    }
}
