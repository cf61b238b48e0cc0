//! STUB
use super::id::InstanceId;
use super::layout::Stream;
use super::run::RunRecord;
use std::sync::Arc;
/// .
pub struct Delivery;
/// .
pub struct Reader;
/// .
pub enum Reply<'a> {
    /// .
    Output(Stream, &'a [u8]),
    /// .
    Started,
    /// .
    Failed(String),
}
impl Delivery {
    /// .
    pub fn new(
        _r: &RunRecord,
        _i: &InstanceId,
        _a: u32,
        _s: &std::collections::BTreeMap<String, zeroize::Zeroizing<String>>,
        _b: Arc<[u8]>,
        _t: &str,
    ) -> Result<Self, String> {
        Err(String::new())
    }
    /// .
    pub fn command(&self) -> &str {
        ""
    }
    /// .
    pub fn token(&self) -> &str {
        ""
    }
    /// .
    pub fn len(&self) -> u64 {
        0
    }
    /// .
    pub fn pieces(&self) -> Vec<&[u8]> {
        vec![]
    }
}
impl Reader {
    /// .
    pub fn new(_t: &str) -> Self {
        Self
    }
    /// .
    pub fn feed<'a>(&mut self, _s: Stream, _b: &'a [u8]) -> Vec<Reply<'a>> {
        vec![]
    }
    /// .
    pub fn finish<'a>(&mut self) -> Vec<Reply<'a>> {
        vec![]
    }
    /// .
    pub fn noise(&self) -> String {
        String::new()
    }
}
