//! Typed headers of a message, made when asked for.

use crate::sip::header::{
    CSeq, Contact, ContentType, HeaderError, HeaderName, NameAddr, RAck, Reason, Replaces, SessionExpires,
    Via,
};
use crate::sip::lex::{self, NumberError};
use crate::sip::{Message, Uri};

impl Message {
    /// The Request-URI of a request.
    #[must_use]
    pub fn uri(&self) -> Option<Uri<'_>> {
        Uri::parse(self.request_uri()?).ok()
    }

    /// The topmost Via value.
    pub fn top_via(&self) -> Result<Via<'_>, HeaderError> {
        self.vias().next().unwrap_or(Err(HeaderError::Missing(HeaderName::Via)))
    }

    /// Every Via value, topmost first.
    pub fn vias(&self) -> impl Iterator<Item = Result<Via<'_>, HeaderError>> {
        self.values(HeaderName::Via).map(|v| Via::parse(v).ok_or(HeaderError::Malformed(HeaderName::Via)))
    }

    /// `From`.
    pub fn from(&self) -> Result<NameAddr<'_>, HeaderError> {
        self.one(HeaderName::From, NameAddr::parse)
    }

    /// `To`.
    pub fn to(&self) -> Result<NameAddr<'_>, HeaderError> {
        self.one(HeaderName::To, NameAddr::parse)
    }

    /// `Call-ID`: visible characters without a space.
    pub fn call_id(&self) -> Result<&str, HeaderError> {
        self.one(HeaderName::CallId, |value| {
            lex::text(value).filter(|id| !id.is_empty() && id.bytes().all(|b| b > b' ' && b != 0x7f))
        })
    }

    /// `CSeq`.
    pub fn cseq(&self) -> Result<CSeq, HeaderError> {
        CSeq::parse(self.header(HeaderName::CSeq).ok_or(HeaderError::Missing(HeaderName::CSeq))?)
    }

    /// Every Contact value.
    pub fn contacts(&self) -> impl Iterator<Item = Result<Contact<'_>, HeaderError>> {
        self.values(HeaderName::Contact)
            .map(|v| Contact::parse(v).ok_or(HeaderError::Malformed(HeaderName::Contact)))
    }

    /// Every Route value, topmost first.
    pub fn routes(&self) -> impl Iterator<Item = Result<NameAddr<'_>, HeaderError>> {
        self.name_addrs(HeaderName::Route)
    }

    /// Every Record-Route value, topmost first.
    pub fn record_routes(&self) -> impl Iterator<Item = Result<NameAddr<'_>, HeaderError>> {
        self.name_addrs(HeaderName::RecordRoute)
    }

    /// The values of any header that lists addresses: `P-Asserted-Identity`, `Diversion`, `Path` …
    pub fn name_addrs(
        &self,
        name: HeaderName<'static>,
    ) -> impl Iterator<Item = Result<NameAddr<'_>, HeaderError>> {
        self.values(name).map(move |v| NameAddr::parse(v).ok_or(HeaderError::Malformed(name)))
    }

    /// `Max-Forwards`; old senders have none.
    pub fn max_forwards(&self) -> Result<Option<u8>, HeaderError> {
        self.number(HeaderName::MaxForwards)
    }

    /// `Content-Length`.
    pub fn content_length(&self) -> Result<Option<usize>, HeaderError> {
        self.number(HeaderName::ContentLength)
    }

    /// `RSeq` of a reliable provisional response (RFC 3262).
    pub fn rseq(&self) -> Result<Option<u32>, HeaderError> {
        self.number(HeaderName::RSeq)
    }

    /// `Min-SE` (RFC 4028).
    #[must_use]
    pub fn min_se(&self) -> Option<u32> {
        self.header(HeaderName::MinSe).and_then(SessionExpires::parse).map(|s| s.seconds)
    }

    /// `Expires`, where a larger number than fits means for ever.
    pub fn expires(&self) -> Result<Option<u32>, HeaderError> {
        match self.number(HeaderName::Expires) {
            Err(HeaderError::Overflow(_)) => Ok(Some(u32::MAX)),
            other => other,
        }
    }

    /// `Retry-After`, the seconds alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        let value = self.header(HeaderName::RetryAfter)?;
        let end = value.iter().position(|b| !b.is_ascii_digit()).unwrap_or(value.len());
        lex::number(&value[..end], u64::from(u32::MAX)).ok().and_then(|n| u32::try_from(n).ok())
    }

    /// `Content-Type`.
    pub fn content_type(&self) -> Result<Option<ContentType<'_>>, HeaderError> {
        self.maybe(HeaderName::ContentType, ContentType::parse)
    }

    /// `RAck` of a PRACK.
    pub fn rack(&self) -> Result<RAck, HeaderError> {
        self.one(HeaderName::RAck, RAck::parse)
    }

    /// `Session-Expires`.
    pub fn session_expires(&self) -> Result<Option<SessionExpires>, HeaderError> {
        self.maybe(HeaderName::SessionExpires, SessionExpires::parse)
    }

    /// `Replaces`.
    pub fn replaces(&self) -> Result<Option<Replaces<'_>>, HeaderError> {
        self.maybe(HeaderName::Replaces, Replaces::parse)
    }

    /// Every Reason value.
    pub fn reasons(&self) -> impl Iterator<Item = Reason<'_>> {
        self.values(HeaderName::Reason).filter_map(Reason::parse)
    }

    fn maybe<'m, T>(
        &'m self,
        name: HeaderName<'static>,
        parse: impl FnOnce(&'m [u8]) -> Option<T>,
    ) -> Result<Option<T>, HeaderError> {
        match self.header(name) {
            None => Ok(None),
            Some(value) => parse(value).map(Some).ok_or(HeaderError::Malformed(name)),
        }
    }

    fn one<'m, T>(
        &'m self,
        name: HeaderName<'static>,
        parse: impl FnOnce(&'m [u8]) -> Option<T>,
    ) -> Result<T, HeaderError> {
        self.maybe(name, parse)?.ok_or(HeaderError::Missing(name))
    }

    fn number<N: TryFrom<u64>>(&self, name: HeaderName<'static>) -> Result<Option<N>, HeaderError> {
        let Some(value) = self.header(name) else { return Ok(None) };
        match lex::number(value, u64::MAX).map(N::try_from) {
            Ok(Ok(number)) => Ok(Some(number)),
            Ok(Err(_)) | Err(NumberError::Overflow) => Err(HeaderError::Overflow(name)),
            Err(NumberError::NotDigits) => Err(HeaderError::Malformed(name)),
        }
    }
}
