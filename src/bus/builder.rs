//! How a bus is put together.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytestring::ByteString;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::{Bus, Inner};
use crate::codec::Codec;
use crate::delivery::{Confirm, Durability, Site};
use crate::driver::memory::{MemoryDriver, MemoryOptions};
use crate::driver::{Driver, host_name};
use crate::envelope::TEXT_BYTES_MAX;
use crate::error::{Error, ErrorKind};
use crate::middleware::Middleware;
use crate::publisher::{Encoder, PublishLimits, Publisher};
use crate::service::ServiceOptions;
use crate::service::{Resources, Services};
use crate::time::{Clock, SystemClock};

/// The settings of a [`Bus`], each with its default.
#[must_use]
pub struct BusBuilder {
    url: String,
    namespace: String,
    driver: Option<Arc<dyn Driver>>,
    services: Services,
    source: ByteString,
    version: String,
    codec: Codec,
    limits: PublishLimits,
    min_durability: Option<Durability>,
    confirm: Confirm,
    clock: Arc<dyn Clock>,
    middleware: Vec<Arc<dyn Middleware>>,
    overrides: HashMap<String, ServiceOptions>,
    resources: Resources,
    flaw: Option<Error>,
}

impl BusBuilder {
    pub(super) fn new() -> Self {
        Self {
            url: "memory:".to_owned(),
            namespace: "rm".to_owned(),
            driver: None,
            services: Services::all(),
            source: ByteString::new(),
            version: String::new(),
            codec: Codec::default(),
            limits: PublishLimits::default(),
            min_durability: None,
            confirm: Confirm::Server,
            clock: Arc::new(SystemClock),
            middleware: Vec::new(),
            overrides: HashMap::new(),
            resources: Resources::default(),
            flaw: None,
        }
    }

    /// Where the events are: `memory:` (the default), `redis://`, `rediss://`, `unix://`,
    /// `redis+sentinel://host:26379,host:26379/MASTER`.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    /// The prefix of every key, so that several buses share one Redis. Default `rm`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// A driver, in place of the one that the address names.
    pub fn driver(mut self, driver: Arc<dyn Driver>) -> Self {
        self.driver = Some(driver);
        self
    }

    /// Which of the registered services are built. Default: all.
    pub fn services(mut self, services: Services) -> Self {
        self.services = services;
        self
    }

    /// Who publishes, as the envelopes say. Default: empty.
    pub fn source(mut self, source: impl Into<ByteString>) -> Self {
        self.source = source.into();
        self
    }

    /// The version of the program, as its dead letters name it: `env!("CARGO_PKG_VERSION")`, say,
    /// or a build's hash. Default: empty.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// How payloads are encoded. Default: `MessagePack`. Readers go by each event's content type.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// The limits of publishing.
    pub fn limits(mut self, limits: PublishLimits) -> Self {
        self.limits = limits;
        self
    }

    /// What the store must do at least to keep an event before it says that it has it. Where it
    /// does less, or does not tell, [`build`](BusBuilder::build) fails; where it does less later,
    /// publishes are answered with [`PublishError::NotStored`](crate::PublishError::NotStored) and
    /// [`Health::is_ready`](crate::driver::monitor::Health::is_ready) is false until it does so
    /// again. Default: none.
    pub fn min_durability(mut self, least: Durability) -> Self {
        self.min_durability = Some(least);
        self
    }

    /// What confirms a published event, beyond the server's answer. Default: nothing does.
    pub fn confirm(mut self, confirm: Confirm) -> Self {
        self.confirm = confirm;
        self
    }

    /// Where wall-clock time comes from: times of events, expiry.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Wraps every handler of every service, inside what was added before.
    pub fn with(mut self, middleware: impl Middleware) -> Self {
        self.middleware.push(Arc::new(middleware));
        self
    }

    /// Options of a service or group, in place of those it names itself, but for its
    /// [`Distribution`](crate::Distribution).
    pub fn options(mut self, service: impl Into<String>, options: ServiceOptions) -> Self {
        self.overrides.insert(service.into(), options);
        self
    }

    /// Shares a value with the services; see [`Init::resource`](crate::Init::resource).
    pub fn resource<T: Any + Send + Sync>(mut self, value: T) -> Self {
        self.resources.shared.insert(TypeId::of::<T>(), Arc::new(value));
        self
    }

    /// [`resource`](BusBuilder::resource) for a value that the program keeps sharing itself.
    pub fn shared<T: Any + Send + Sync>(mut self, value: Arc<T>) -> Self {
        self.resources.shared.insert(TypeId::of::<T>(), value);
        self
    }

    /// Configures a service; see [`Init::configuration`](crate::Init::configuration).
    pub fn configure(mut self, service: impl Into<String>, values: impl Serialize) -> Self {
        let service = service.into();
        match serde_json::to_value(values) {
            Ok(values) => {
                self.resources.configuration.insert(service, values);
            }
            Err(error) => {
                let text = format!("configuration of service {service} cannot be kept: {error}");
                self.flaw.get_or_insert(Error::invalid(text));
            }
        }
        self
    }

    /// Connects, and builds the selected services. None of them runs yet.
    ///
    /// # Errors
    /// As [`Bus::connect`], where a setting is not valid, and where the store does less to keep
    /// events than [`min_durability`](BusBuilder::min_durability) asks for.
    pub async fn build(self) -> Result<Bus, Error> {
        if let Some(flaw) = self.flaw {
            return Err(flaw);
        }
        self.limits.check()?;
        if self.source.len() > TEXT_BYTES_MAX {
            let text = format!("source has {} bytes, {TEXT_BYTES_MAX} at most", self.source.len());
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        check_version(&self.version)?;
        let driver = match (self.driver, self.min_durability) {
            (Some(_), Some(_)) => {
                let text = "min_durability is asked of the driver that an address names";
                return Err(Error::invalid(text).with_help("ask the driver where it is made"));
            }
            (Some(_), None) if self.confirm != Confirm::Server => {
                return Err(Error::invalid("confirm is for a driver that the address names")
                    .with_help("set it in the options of the driver that is given"));
            }
            (Some(driver), None) => driver,
            (None, least) => {
                connect(&self.url, &self.namespace, &self.clock, least, self.confirm).await?
            }
        };
        let encoder = Arc::new(Encoder {
            codec: self.codec,
            source: self.source,
            payload_bytes_max: self.limits.payload_bytes_max,
            clock: Arc::clone(&self.clock),
        });
        let publisher = Publisher::new(Arc::clone(&driver), self.limits, encoder);
        let resources = Arc::new(self.resources);
        let built = self.services.build(&publisher, &resources).await;
        let instances = match built {
            Ok(instances) => instances,
            Err(error) => {
                driver.close().await;
                return Err(error);
            }
        };
        let services = crate::service::by_name(&instances);
        Ok(Bus(Arc::new(Inner {
            driver,
            publisher,
            clock: self.clock,
            site: Site { handler: String::new(), version: self.version, host: host_name() },
            middleware: self.middleware,
            overrides: self.overrides,
            services,
            idle: Mutex::new(instances),
            running: Mutex::default(),
            suspects: Arc::new(Semaphore::new(1)),
        })))
    }
}

fn check_version(version: &str) -> Result<(), Error> {
    if version.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    let text = format!("version has {} bytes, {TEXT_BYTES_MAX} at most", version.len());
    Err(Error::new(ErrorKind::TooLarge, text))
}

async fn connect(
    url: &str,
    namespace: &str,
    clock: &Arc<dyn Clock>,
    least: Option<Durability>,
    confirm: Confirm,
) -> Result<Arc<dyn Driver>, Error> {
    let (scheme, _) = url.split_once(':').unwrap_or((url, ""));
    match scheme {
        "memory" if confirm != Confirm::Server => {
            Err(Error::invalid("memory: has no replicas and no file that could confirm an event")
                .with_help("leave the confirmation out, or connect to a server"))
        }
        "memory" => {
            if let Some(least) = least.filter(|least| *least > Durability::Memory) {
                let text = format!("memory: keeps nothing, and {least} is the least asked for");
                return Err(Error::new(ErrorKind::Unsupported, text)
                    .with_help("connect to a Redis, or ask for no minimum"));
            }
            let clock = Arc::clone(clock);
            Ok(MemoryDriver::new(MemoryOptions { clock, ..MemoryOptions::default() }))
        }
        "redis" | "rediss" | "unix" | "redis+unix" | "redis+sentinel" | "rediss+sentinel"
        | "redis+cluster" => connect_redis(url, namespace, clock, least, confirm).await,
        _ => Err(Error::invalid(format!("address scheme {:?} is not known", shown(url)))
            .with_help("write memory:, redis://host:port, rediss://host:port or unix:///path")),
    }
}

/// The scheme of an address, where it looks like one: else it may be anything, a password too.
fn shown(url: &str) -> &str {
    const BYTES_MAX: usize = 20;
    let sign = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    if scheme.len() <= BYTES_MAX && scheme.bytes().all(sign) { scheme } else { "" }
}

#[cfg(feature = "redis")]
async fn connect_redis(
    url: &str,
    namespace: &str,
    clock: &Arc<dyn Clock>,
    least: Option<Durability>,
    confirm: Confirm,
) -> Result<Arc<dyn Driver>, Error> {
    use crate::driver::redis::{RedisDriver, RedisOptions};
    let mut options = RedisOptions::new(url);
    options.namespace = namespace.to_owned();
    options.clock = Arc::clone(clock);
    options.min_durability = least;
    options.confirm = confirm;
    Ok(RedisDriver::connect(options).await?)
}

#[cfg(not(feature = "redis"))]
#[expect(clippy::unused_async, reason = "the same signature as with the feature")]
async fn connect_redis(
    _: &str,
    _: &str,
    _: &Arc<dyn Clock>,
    _: Option<Durability>,
    _: Confirm,
) -> Result<Arc<dyn Driver>, Error> {
    Err(Error::new(ErrorKind::Unsupported, "this program was built without the Redis driver")
        .with_help("enable the feature `redis` of rumormill"))
}
