//! What clients may take at the same time: so much in all, of which one address has no more than half.
//!
//! tower's limits know no addresses, so one client that stalls would take all there is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of slots.
#[derive(Debug)]
pub struct Slots {
    free: Arc<Semaphore>,
    /// Slots that one address may have.
    share: usize,
    /// What is left of the share of each address that has a slot or waits for one.
    shares: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
}

/// A slot, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
    permits: Option<[OwnedSemaphorePermit; 2]>,
}

impl Slots {
    /// `count` free slots.
    pub fn new(count: usize) -> Arc<Self> {
        let (free, share) = (Arc::new(Semaphore::new(count)), count.div_ceil(2));
        Arc::new(Self { free, share, shares: Mutex::default() })
    }

    /// Takes a slot if there is one for this address.
    pub fn try_take(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let own = self.share_of(address).try_acquire_owned();
        let permits = own.and_then(|own| Ok([own, Arc::clone(&self.free).try_acquire_owned()?]));
        let slot = Slot { slots: Arc::clone(self), address, permits: permits.ok() };
        slot.permits.is_some().then_some(slot)
    }

    /// Takes a slot as soon as there is one for this address.
    pub async fn take(self: &Arc<Self>, address: IpAddr) -> Slot {
        const NEVER_CLOSED: &str = "nobody closes the semaphore";
        let mut slot = Slot { slots: Arc::clone(self), address, permits: None };
        let own = self.share_of(address).acquire_owned().await.expect(NEVER_CLOSED);
        let any = Arc::clone(&self.free).acquire_owned().await.expect(NEVER_CLOSED);
        slot.permits = Some([own, any]);
        slot
    }

    fn share_of(&self, address: IpAddr) -> Arc<Semaphore> {
        let share = || Arc::new(Semaphore::new(self.share));
        Arc::clone(self.shares().entry(address).or_insert_with(share))
    }

    fn shares(&self) -> MutexGuard<'_, HashMap<IpAddr, Arc<Semaphore>>> {
        // No change of the map is ever half done.
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.permits = None;
        let mut shares = self.slots.shares();
        if shares.get(&self.address).is_some_and(|share| Arc::strong_count(share) == 1) {
            shares.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[test]
    fn one_address_leaves_half_to_others() {
        let slots = Slots::new(4);
        let taken = [1, 1, 1, 2, 2, 3].map(|last| slots.try_take(address(last)));
        let granted = taken.each_ref().map(Option::is_some);
        assert_eq!(granted, [true, true, false, true, true, false]);
        drop(taken);
        assert!(slots.shares().is_empty(), "addresses without a slot are forgotten");
        assert!(slots.try_take(address(3)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_waited_for() {
        let slots = Slots::new(2);
        let first = slots.take(address(1)).await;
        let (_, second) = tokio::join!(
            async {
                tokio::task::yield_now().await;
                drop(first);
            },
            slots.take(address(1))
        );
        let waiting =
            tokio::time::timeout(std::time::Duration::from_secs(1), slots.take(address(1)));
        assert!(waiting.await.is_err());
        drop(second);
        assert!(slots.shares().is_empty());
    }
}
