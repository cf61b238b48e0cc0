// Changed for sshjob: vendor/README.md says what and why.
use tokio::sync::mpsc::Sender;

use super::WindowSizeRef;
use crate::ChannelMsg;

/// A handle to the [`super::Channel`]'s to be able to transmit messages
/// to it and update it's `window_size`.
#[derive(Debug)]
pub struct ChannelRef {
    pub(super) sender: Sender<ChannelMsg>,
    pub(super) window_size: WindowSizeRef,
}

impl ChannelRef {
    pub fn new(sender: Sender<ChannelMsg>) -> Self {
        Self {
            sender,
            window_size: WindowSizeRef::new(0),
        }
    }

    /// Whether few packets wait for the channel's reader, or nobody reads any more.
    pub(crate) fn keeps_up(&self) -> bool {
        self.sender.capacity() >= self.room() || self.sender.is_closed()
    }

    /// Waits until few packets wait for the channel's reader.
    pub(crate) async fn caught_up(&self) {
        let _ = self.sender.reserve_many(self.room()).await;
    }

    /// How many more packets there is room for where few wait.
    fn room(&self) -> usize {
        const FEW: usize = 8;
        self.sender.max_capacity().saturating_sub(FEW).max(1)
    }

    pub(crate) fn window_size(&self) -> &WindowSizeRef {
        &self.window_size
    }
}

impl std::ops::Deref for ChannelRef {
    type Target = Sender<ChannelMsg>;

    fn deref(&self) -> &Self::Target {
        &self.sender
    }
}
