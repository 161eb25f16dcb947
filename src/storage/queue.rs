//! A first-in first-out queue with a fixed capacity.
//!
//! All memory is taken at construction. Whoever pushes has checked the room before: a full queue
//! is a broken invariant, not a condition to handle.

use std::collections::VecDeque;

/// First-in first-out queue of at most `capacity` items.
#[derive(Debug)]
pub struct Queue<T> {
    items: VecDeque<T>,
    capacity: usize,
}

impl<T> Queue<T> {
    /// An empty queue for `capacity` items.
    ///
    /// # Panics
    ///
    /// If `capacity` is zero.
    #[must_use]
    pub fn new(capacity: usize) -> Queue<T> {
        assert!(capacity > 0, "a queue holds at least one item");
        Queue { items: VecDeque::with_capacity(capacity), capacity }
    }

    /// Appends `item`.
    ///
    /// # Panics
    ///
    /// If the queue is full.
    pub fn push(&mut self, item: T) {
        assert!(self.items.len() < self.capacity, "the queue of {} is full", self.capacity);
        self.items.push_back(item);
    }

    /// Removes and returns the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// The oldest item.
    #[must_use]
    pub fn front(&self) -> Option<&T> {
        self.items.front()
    }

    /// The oldest item, to change it in place.
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.items.front_mut()
    }

    /// Items now in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether nothing more can be pushed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.items.len() == self.capacity
    }

    /// How many items can still be pushed.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity - self.items.len()
    }

    /// Most items the queue can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// All items, the oldest first.
    #[must_use]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.items.iter()
    }

    /// All items, the oldest first, to change them in place.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut T> {
        self.items.iter_mut()
    }

    /// Removes all items.
    pub fn clear(&mut self) {
        self.items.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: items leave in the order they came, and the counts follow.
    #[test]
    fn first_in_first_out() {
        let mut queue = Queue::new(3);
        assert!(queue.is_empty());
        for item in 0..3 {
            queue.push(item);
        }
        assert!(queue.is_full());
        assert_eq!((queue.len(), queue.room(), queue.capacity()), (3, 0, 3));
        assert_eq!(queue.pop(), Some(0));
        queue.push(3);
        assert_eq!(queue.front(), Some(&1));
        assert_eq!(queue.iter().copied().collect::<Vec<i32>>(), [1, 2, 3]);
        queue.clear();
        assert_eq!(queue.pop(), None);
    }

    /// Goal: pushing into a full queue is a broken invariant.
    #[test]
    #[should_panic(expected = "the queue of 1 is full")]
    fn overflow_panics() {
        let mut queue = Queue::new(1);
        queue.push(1);
        queue.push(2);
    }
}
