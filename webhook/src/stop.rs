//! The end, told to everybody who has to see to it, and waited for.

use tokio::sync::watch;

/// Tells the end.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Hears of the end. Whoever has one is waited for.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stopper {
    /// With one who hears of it; others are its clones.
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stop(receiver))
    }

    /// Tells the end, and returns when all who heard of it are gone.
    pub async fn stop(self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

impl Stop {
    /// Returns at the end, at once when it was told before.
    pub async fn signal(&mut self) {
        // A sender that is gone has told the end as well.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}
