//! What a service is built from.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::publisher::Publisher;

/// What a service's constructor gets: its configuration, what the program shares, and the
/// publishing half of the bus.
pub struct Init {
    pub(crate) service: &'static str,
    pub(crate) publisher: Publisher,
    pub(crate) resources: Arc<Resources>,
}

/// What the program gave to the bus for its services.
#[derive(Default)]
pub(crate) struct Resources {
    pub(crate) shared: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    pub(crate) configuration: HashMap<String, serde_json::Value>,
}

impl Init {
    /// The name of the service that is being built.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// A handle to publish with, to keep.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// What the program shared with [`BusBuilder::resource`](crate::BusBuilder::resource).
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when it shared no value of this type.
    pub fn resource<T: Any + Send + Sync>(&self) -> Result<Arc<T>, Error> {
        let shared = self.resources.shared.get(&TypeId::of::<T>()).cloned();
        shared.and_then(|shared| shared.downcast().ok()).ok_or_else(|| {
            let (name, service) = (type_name::<T>(), self.service);
            Error::invalid(format!("service {service} asks for a resource of type {name}"))
                .with_help("give one to the bus with `Bus::builder().resource(..)`")
        })
    }

    /// The service's configuration, as given to
    /// [`BusBuilder::configure`](crate::BusBuilder::configure) under the service's name. Where
    /// none was given, what an empty map decodes to.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), with what does not fit.
    pub fn configuration<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let given = self.resources.configuration.get(self.service).cloned();
        let given = given.unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new()));
        serde_json::from_value(given).map_err(|error| {
            let service = self.service;
            Error::invalid(format!("configuration of service {service} does not fit: {error}"))
                .with_help("see `Bus::builder().configure(name, values)`")
        })
    }
}
