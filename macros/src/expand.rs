//! The `impl Event` of a struct.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Result};

use crate::attribute::Attribute;
use crate::key;

/// Expands the derive.
pub(crate) fn event(input: &DeriveInput) -> Result<TokenStream> {
    let fields = fields(input)?;
    refuse_generics(input)?;
    refuse_field_attributes(fields)?;
    let Attribute { event_type, version, key, upcasts } = Attribute::of(input)?;
    let upcasts = upcasts.map(|upcasts| upcasts.body(version));
    let key = key.map(|key| key::body(fields, &key)).transpose()?.map(|body| {
        quote! {
            fn key(&self) -> ::core::option::Option<::std::borrow::Cow<'_, str>> {
                #body
            }
        }
    });
    let name = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl ::rumormill::Event for #name {
            const TYPE: ::rumormill::EventType = ::rumormill::EventType::from_static(#event_type);
            const VERSION: u32 = #version;
            #key
            #upcasts
        }
    })
}

fn fields(input: &DeriveInput) -> Result<&Fields> {
    let what = match &input.data {
        Data::Struct(data) => return Ok(&data.fields),
        Data::Enum(_) => "an enum",
        Data::Union(_) => "a union",
    };
    let text = format!("an event is a struct, not {what}; derive `Event` on one struct per type");
    Err(Error::new_spanned(&input.ident, text))
}

fn refuse_generics(input: &DeriveInput) -> Result<()> {
    if input.generics.params.is_empty() {
        return Ok(());
    }
    let text = "an event has one type for one name; use a concrete struct";
    Err(Error::new_spanned(&input.generics, text))
}

/// An attribute on a field would say nothing; silence would be taken for a key.
fn refuse_field_attributes(fields: &Fields) -> Result<()> {
    let mut attributes = fields.iter().flat_map(|field| &field.attrs);
    match attributes.find(|attribute| attribute.path().is_ident("event")) {
        Some(attribute) => {
            let text = "`#[event(...)]` belongs on the struct; name the field there, as `key`";
            Err(Error::new_spanned(attribute, text))
        }
        None => Ok(()),
    }
}
