//! Enumerations whose values are strings in JSON, in settings, in the database or in metrics.

/// Defines an enumeration together with the string of each value. It is the only place that lists the strings: `as_str`,
/// `Display`, `FromStr` and `TryFrom<String>` use it, and `ALL` lists the values in order.
///
/// `enum Name: serde` also names the variants for serde, and for utoipa, which reads serde's names; the enumeration then
/// derives `Serialize` or `Deserialize`.
///
/// ```
/// twilio_edge_contract::string_enum! {
///     /// Direction of a message.
///     #[derive(Debug, Clone, Copy, PartialEq, Eq)]
///     pub enum Direction {
///         /// From a contact to us.
///         Inbound = "inbound",
///         /// From us to a contact.
///         Outbound = "outbound",
///     }
/// }
/// assert_eq!(Direction::Inbound.as_str(), "inbound");
/// assert_eq!("outbound".parse(), Ok(Direction::Outbound));
/// let problem = "both".parse::<Direction>().unwrap_err();
/// assert_eq!(problem, "\"both\" must be one of inbound, outbound");
/// ```
#[macro_export]
macro_rules! string_enum {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident: serde {
            $($(#[$variant_meta:meta])* $variant:ident = $text:tt),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis enum $name {
            $($(#[$variant_meta])* #[serde(rename = $text)] $variant),+
        }
        $crate::string_enum!(@strings $vis $name $($variant $text)+);
    };
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[$variant_meta:meta])* $variant:ident = $text:tt),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis enum $name {
            $($(#[$variant_meta])* $variant),+
        }
        $crate::string_enum!(@strings $vis $name $($variant $text)+);
    };
    (@strings $vis:vis $name:ident $($variant:ident $text:tt)+) => {
        impl $name {
            /// All values, in order.
            $vis const ALL: [$name; [$($text),+].len()] = [$($name::$variant),+];

            /// Returns the string of the value.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text),+
                }
            }
        }

        // An enumeration that is only written, or never listed, is no dead code.
        const _: &[$name] = &$name::ALL;

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<$name, String> {
                match text {
                    $($text => Ok($name::$variant),)+
                    _ => Err($crate::string_enum::unknown(text, &[$($text),+])),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<$name, String> {
                text.parse()
            }
        }
    };
}

/// Returns the error of a text that is no value, with all values. It repeats at most 64 characters of the text.
#[must_use]
pub fn unknown(text: &str, values: &[&str]) -> String {
    const MAX_CHARS: usize = 64;
    let text: String = text.chars().take(MAX_CHARS).collect();
    format!("{text:?} must be one of {}", values.join(", "))
}
