//! STUB
use crate::domain::run::Target;
use jiff::Timestamp;
/// .
#[derive(Clone)]
pub struct Trust<S>(pub S);
/// .
pub enum TrustError {
    /// .
    R(String),
}
impl From<TrustError> for crate::adapter::ssh::Distrust {
    fn from(e: TrustError) -> Self {
        let TrustError::R(s) = e;
        Self::Rejected(s)
    }
}
impl<S: crate::port::Store> Trust<S> {
    /// .
    pub async fn check(&self, _t: &Target, _k: &str, _f: &str, _n: Timestamp) -> Result<(), TrustError> {
        let _ = &self.0;
        Ok(())
    }
}
