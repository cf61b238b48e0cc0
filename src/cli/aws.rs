//! AWS as the command line reaches it: one configuration for the process, read when something first needs it.

use serde_json::Value;
use zeroize::Zeroizing;

use super::exit::{Exit, Fail};
use crate::adapter::store::AnyStore;
use crate::domain::instance::Instance;
use crate::domain::job::Targets;
use crate::domain::job::notify::Topic;
use crate::port::{InventoryError, NotifyError, Topics};

/// Where AWS is reached, and as whom: as the usual variables, files and roles say, but for what flags say.
#[derive(Debug, Clone, Default)]
#[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "a build without AWS has no use for it"))]
pub struct Aws {
    profile: Option<String>,
    /// In which region to work, whatever else says so.
    region: Option<String>,
    #[cfg(feature = "aws")]
    config: std::sync::Arc<tokio::sync::OnceCell<aws_config::SdkConfig>>,
}

impl Aws {
    /// Reaches AWS with `profile`, and in the first of `regions`; where there is none, in that of the usual variables.
    pub fn new(profile: Option<&str>, regions: &[String]) -> Self {
        Self {
            profile: profile.map(str::to_owned),
            region: regions.first().cloned(),
            #[cfg(feature = "aws")]
            config: std::sync::Arc::default(),
        }
    }
}

#[cfg(feature = "aws")]
impl Aws {
    /// The store at `place`, as `s3://bucket/prefix`.
    ///
    /// # Errors
    /// What is wrong with `place`, or that the region is not known.
    pub async fn store(&self, place: &str) -> Result<AnyStore, Fail> {
        use crate::adapter::aws::s3::S3Store;
        let client = aws_sdk_s3::Client::new(self.in_region().await?);
        let store = S3Store::parse(place, client).map_err(Fail::usage)?;
        let client = self.client_of(store.bucket()).await?;
        Ok(AnyStore::S3(store.by(client)))
    }

    /// A client of S3 for `bucket`. A flag says where hosts and functions are, and a bucket may be elsewhere: then it is
    /// asked where.
    async fn client_of(&self, bucket: &str) -> Result<aws_sdk_s3::Client, Fail> {
        let config = self.in_region().await?;
        let client = aws_sdk_s3::Client::new(config);
        if self.region.is_none() {
            return Ok(client);
        }
        let Some(region) = Box::pin(crate::adapter::aws::s3::region_of(&client, bucket)).await else {
            return Ok(client);
        };
        let there = config.to_builder().region(aws_config::Region::new(region)).build();
        Ok(aws_sdk_s3::Client::new(&there))
    }

    /// The running instances of EC2 that `targets` chooses.
    ///
    /// # Errors
    /// As an inventory's.
    pub async fn instances(&self, targets: &Targets) -> Result<Vec<Instance>, InventoryError> {
        let client = aws_sdk_ec2::Client::new(self.configured().await);
        Box::pin(crate::adapter::aws::ec2::Ec2Inventory::new(client).matching(targets)).await
    }

    /// The private key at `s3://bucket/key`.
    ///
    /// # Errors
    /// Where it cannot be had.
    pub async fn read_key(&self, bucket: &str, key: &str) -> Result<Zeroizing<Vec<u8>>, Fail> {
        use crate::port::{KeyReadError, Keys as _};
        let keys = crate::adapter::aws::keys::S3Keys::new(self.client_of(bucket).await?);
        Box::pin(keys.read_key(bucket, key)).await.map_err(|error| match error {
            KeyReadError::Unavailable(why) => Fail::new(Exit::Unavailable, why),
            KeyReadError::Refused(why) => {
                let (why, hint) = why.split_once("\nhint: ").unwrap_or((&why, ""));
                let other = "`-i FILE` names a key of your own, and `agent` is one";
                let hint = if hint.is_empty() { other.to_owned() } else { format!("{other}; or {hint}") };
                Fail::usage(why).hint(hint)
            }
        })
    }

    /// The parameter at `path`, decrypted.
    ///
    /// # Errors
    /// Where it cannot be had.
    pub async fn read_parameter(&self, path: &str) -> Result<Zeroizing<String>, Fail> {
        use crate::port::{KeyReadError, Parameters as _};
        let client = aws_sdk_ssm::Client::new(self.in_region().await?);
        let parameters = crate::adapter::aws::parameters::SsmParameters::new(client);
        Box::pin(parameters.read_parameter(path)).await.map_err(|error| match error {
            KeyReadError::Unavailable(why) => Fail::new(Exit::Unavailable, why),
            KeyReadError::Refused(why) => Fail::usage(why),
        })
    }

    /// Sends `event` to `function` and waits for its answer.
    ///
    /// # Errors
    /// Where it cannot be reached, or refuses.
    pub async fn ask(&self, function: &str, event: &Value) -> Result<Value, Fail> {
        use crate::adapter::aws::lambda::{Refused, ask};
        use crate::functions::refusal::Kind;
        let client = aws_sdk_lambda::Client::new(self.in_region().await?);
        Box::pin(ask(&client, function, event)).await.map_err(|refused| match refused {
            Refused::Unavailable(why) => Fail::new(Exit::Unavailable, why),
            Refused::Answered { kind, why } => {
                let exit = if Kind::is_unavailable(&kind) { Exit::Unavailable } else { Exit::Usage };
                Fail::new(exit, format!("`{function}` says {kind}: {why}"))
            }
        })
    }

    async fn configured(&self) -> &aws_config::SdkConfig {
        let read = || async {
            let mut loader = crate::adapter::aws::configuration();
            if let Some(profile) = &self.profile {
                loader = loader.profile_name(profile);
            }
            let config = Box::pin(loader.load()).await;
            // An empty variable is as good as none.
            let own = config.region().filter(|region| !region.as_ref().is_empty()).cloned();
            let region = self.region.clone().map(aws_config::Region::new).or(own);
            config.into_builder().region(region).build()
        };
        self.config.get_or_init(read).await
    }

    async fn in_region(&self) -> Result<&aws_config::SdkConfig, Fail> {
        let config = self.configured().await;
        match config.region() {
            Some(_) => Ok(config),
            None => Err(Fail::usage("it is not known in which AWS region to work")
                .hint("set `AWS_REGION`, name one with `--region`, or a profile that has one with `--profile`")),
        }
    }
}

#[cfg(feature = "aws")]
impl Topics for Aws {
    async fn publish(&self, topic: &Topic, subject: &str, text: &str) -> Result<(), NotifyError> {
        let client = aws_sdk_sns::Client::new(self.configured().await);
        Box::pin(crate::adapter::aws::sns::SnsTopics::new(client).publish(topic, subject, text)).await
    }
}

#[cfg(not(feature = "aws"))]
impl Topics for Aws {
    async fn publish(&self, topic: &Topic, _: &str, _: &str) -> Result<(), NotifyError> {
        Err(NotifyError(absent(&format!("the topic `{}`", topic.arn())).text()))
    }
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "with AWS they wait for it")]
impl Aws {
    /// Needs AWS.
    ///
    /// # Errors
    /// Always.
    pub async fn store(&self, place: &str) -> Result<AnyStore, Fail> {
        Err(absent(&format!("the store `{place}`")))
    }

    /// Needs AWS.
    ///
    /// # Errors
    /// Always.
    pub async fn instances(&self, _: &Targets) -> Result<Vec<Instance>, InventoryError> {
        let why = absent("the inventory `ec2`").hint("name an inventory file with `--inventory FILE`");
        Err(InventoryError::Invalid(why.told()))
    }

    /// Needs AWS.
    ///
    /// # Errors
    /// Always.
    pub async fn read_key(&self, bucket: &str, key: &str) -> Result<Zeroizing<Vec<u8>>, Fail> {
        Err(absent(&format!("the key `s3://{bucket}/{key}`")))
    }

    /// Needs AWS.
    ///
    /// # Errors
    /// Always.
    pub async fn read_parameter(&self, path: &str) -> Result<Zeroizing<String>, Fail> {
        Err(absent(&format!("the parameter `{path}`")))
    }

    /// Needs AWS.
    ///
    /// # Errors
    /// Always.
    pub async fn ask(&self, function: &str, _: &Value) -> Result<Value, Fail> {
        Err(absent(&format!("the function `{function}`")))
    }
}

#[cfg(not(feature = "aws"))]
fn absent(what: &str) -> Fail {
    Fail::new(Exit::Unavailable, format!("{what} needs AWS, and this program was built without it"))
        .hint("build it with its default features: `cargo build --release`")
}
