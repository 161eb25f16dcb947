//! Statuses of create operations: what became of each event.
//!
//! The numbers and names are those of the clients. Which status an event gets when several apply
//! is the ledger's concern, not this module's.

/// A number that is not a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusUnknown(pub u32);

impl std::fmt::Display for StatusUnknown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} is not the number of a status that this release knows", self.0)
    }
}

// So that programs can use `?` on the conversion.
impl std::error::Error for StatusUnknown {}

/// Defines an enumeration of statuses with the conversions from number and to name.
macro_rules! statuses {
    ($(#[$documentation:meta])* $kind:ident {
        $($variant:ident = $number:literal, $name:literal;)+
    }) => {
        $(#[$documentation])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $kind {
            $(#[doc = concat!("`", $name, "`")] $variant = $number,)+
        }

        impl $kind {
            /// Every status, in ascending order of number.
            pub const ALL: &'static [$kind] = &[$($kind::$variant,)+];

            /// The name that clients know, in lower case with underscores.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $($kind::$variant => $name,)+
                }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u32 {
                self as u32
            }
        }

        impl From<$kind> for u32 {
            fn from(status: $kind) -> u32 {
                status.number()
            }
        }

        impl TryFrom<u32> for $kind {
            type Error = StatusUnknown;

            fn try_from(number: u32) -> Result<$kind, StatusUnknown> {
                match number {
                    $($number => Ok($kind::$variant),)+
                    unknown => Err(StatusUnknown(unknown)),
                }
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.name())
            }
        }
    };
}

statuses! {
    /// What became of one event of `create_accounts`.
    CreateAccountStatus {
        LinkedEventFailed = 1, "linked_event_failed";
        LinkedEventChainOpen = 2, "linked_event_chain_open";
        TimestampMustBeZero = 3, "timestamp_must_be_zero";
        ReservedField = 4, "reserved_field";
        ReservedFlag = 5, "reserved_flag";
        IdMustNotBeZero = 6, "id_must_not_be_zero";
        IdMustNotBeIntMax = 7, "id_must_not_be_int_max";
        FlagsAreMutuallyExclusive = 8, "flags_are_mutually_exclusive";
        DebitsPendingMustBeZero = 9, "debits_pending_must_be_zero";
        DebitsPostedMustBeZero = 10, "debits_posted_must_be_zero";
        CreditsPendingMustBeZero = 11, "credits_pending_must_be_zero";
        CreditsPostedMustBeZero = 12, "credits_posted_must_be_zero";
        LedgerMustNotBeZero = 13, "ledger_must_not_be_zero";
        CodeMustNotBeZero = 14, "code_must_not_be_zero";
        ExistsWithDifferentFlags = 15, "exists_with_different_flags";
        ExistsWithDifferentUserData128 = 16, "exists_with_different_user_data_128";
        ExistsWithDifferentUserData64 = 17, "exists_with_different_user_data_64";
        ExistsWithDifferentUserData32 = 18, "exists_with_different_user_data_32";
        ExistsWithDifferentLedger = 19, "exists_with_different_ledger";
        ExistsWithDifferentCode = 20, "exists_with_different_code";
        Exists = 21, "exists";
        ImportedEventExpected = 22, "imported_event_expected";
        ImportedEventNotExpected = 23, "imported_event_not_expected";
        ImportedEventTimestampOutOfRange = 24, "imported_event_timestamp_out_of_range";
        ImportedEventTimestampMustNotAdvance = 25, "imported_event_timestamp_must_not_advance";
        ImportedEventTimestampMustNotRegress = 26, "imported_event_timestamp_must_not_regress";
        Created = 0xFFFF_FFFF, "created";
    }
}

statuses! {
    /// What became of one event of `create_transfers`.
    CreateTransferStatus {
        LinkedEventFailed = 1, "linked_event_failed";
        LinkedEventChainOpen = 2, "linked_event_chain_open";
        TimestampMustBeZero = 3, "timestamp_must_be_zero";
        ReservedFlag = 4, "reserved_flag";
        IdMustNotBeZero = 5, "id_must_not_be_zero";
        IdMustNotBeIntMax = 6, "id_must_not_be_int_max";
        FlagsAreMutuallyExclusive = 7, "flags_are_mutually_exclusive";
        DebitAccountIdMustNotBeZero = 8, "debit_account_id_must_not_be_zero";
        DebitAccountIdMustNotBeIntMax = 9, "debit_account_id_must_not_be_int_max";
        CreditAccountIdMustNotBeZero = 10, "credit_account_id_must_not_be_zero";
        CreditAccountIdMustNotBeIntMax = 11, "credit_account_id_must_not_be_int_max";
        AccountsMustBeDifferent = 12, "accounts_must_be_different";
        PendingIdMustBeZero = 13, "pending_id_must_be_zero";
        PendingIdMustNotBeZero = 14, "pending_id_must_not_be_zero";
        PendingIdMustNotBeIntMax = 15, "pending_id_must_not_be_int_max";
        PendingIdMustBeDifferent = 16, "pending_id_must_be_different";
        TimeoutReservedForPendingTransfer = 17, "timeout_reserved_for_pending_transfer";
        LedgerMustNotBeZero = 19, "ledger_must_not_be_zero";
        CodeMustNotBeZero = 20, "code_must_not_be_zero";
        DebitAccountNotFound = 21, "debit_account_not_found";
        CreditAccountNotFound = 22, "credit_account_not_found";
        AccountsMustHaveTheSameLedger = 23, "accounts_must_have_the_same_ledger";
        TransferMustHaveTheSameLedgerAsAccounts =
            24, "transfer_must_have_the_same_ledger_as_accounts";
        PendingTransferNotFound = 25, "pending_transfer_not_found";
        PendingTransferNotPending = 26, "pending_transfer_not_pending";
        PendingTransferHasDifferentDebitAccountId =
            27, "pending_transfer_has_different_debit_account_id";
        PendingTransferHasDifferentCreditAccountId =
            28, "pending_transfer_has_different_credit_account_id";
        PendingTransferHasDifferentLedger = 29, "pending_transfer_has_different_ledger";
        PendingTransferHasDifferentCode = 30, "pending_transfer_has_different_code";
        ExceedsPendingTransferAmount = 31, "exceeds_pending_transfer_amount";
        PendingTransferHasDifferentAmount = 32, "pending_transfer_has_different_amount";
        PendingTransferAlreadyPosted = 33, "pending_transfer_already_posted";
        PendingTransferAlreadyVoided = 34, "pending_transfer_already_voided";
        PendingTransferExpired = 35, "pending_transfer_expired";
        ExistsWithDifferentFlags = 36, "exists_with_different_flags";
        ExistsWithDifferentDebitAccountId = 37, "exists_with_different_debit_account_id";
        ExistsWithDifferentCreditAccountId = 38, "exists_with_different_credit_account_id";
        ExistsWithDifferentAmount = 39, "exists_with_different_amount";
        ExistsWithDifferentPendingId = 40, "exists_with_different_pending_id";
        ExistsWithDifferentUserData128 = 41, "exists_with_different_user_data_128";
        ExistsWithDifferentUserData64 = 42, "exists_with_different_user_data_64";
        ExistsWithDifferentUserData32 = 43, "exists_with_different_user_data_32";
        ExistsWithDifferentTimeout = 44, "exists_with_different_timeout";
        ExistsWithDifferentCode = 45, "exists_with_different_code";
        Exists = 46, "exists";
        OverflowsDebitsPending = 47, "overflows_debits_pending";
        OverflowsCreditsPending = 48, "overflows_credits_pending";
        OverflowsDebitsPosted = 49, "overflows_debits_posted";
        OverflowsCreditsPosted = 50, "overflows_credits_posted";
        OverflowsDebits = 51, "overflows_debits";
        OverflowsCredits = 52, "overflows_credits";
        OverflowsTimeout = 53, "overflows_timeout";
        ExceedsCredits = 54, "exceeds_credits";
        ExceedsDebits = 55, "exceeds_debits";
        ImportedEventExpected = 56, "imported_event_expected";
        ImportedEventNotExpected = 57, "imported_event_not_expected";
        ImportedEventTimestampOutOfRange = 58, "imported_event_timestamp_out_of_range";
        ImportedEventTimestampMustNotAdvance = 59, "imported_event_timestamp_must_not_advance";
        ImportedEventTimestampMustNotRegress = 60, "imported_event_timestamp_must_not_regress";
        ImportedEventTimestampMustPostdateDebitAccount =
            61, "imported_event_timestamp_must_postdate_debit_account";
        ImportedEventTimestampMustPostdateCreditAccount =
            62, "imported_event_timestamp_must_postdate_credit_account";
        ImportedEventTimeoutMustBeZero = 63, "imported_event_timeout_must_be_zero";
        ClosingTransferMustBePending = 64, "closing_transfer_must_be_pending";
        DebitAccountAlreadyClosed = 65, "debit_account_already_closed";
        CreditAccountAlreadyClosed = 66, "credit_account_already_closed";
        ExistsWithDifferentLedger = 67, "exists_with_different_ledger";
        IdAlreadyFailed = 68, "id_already_failed";
        Created = 0xFFFF_FFFF, "created";
    }
}

impl CreateTransferStatus {
    /// Whether the failure depends on the state of the moment. The id of such a transfer is burnt:
    /// later attempts get [`CreateTransferStatus::IdAlreadyFailed`].
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            CreateTransferStatus::DebitAccountNotFound
                | CreateTransferStatus::CreditAccountNotFound
                | CreateTransferStatus::PendingTransferNotFound
                | CreateTransferStatus::ExceedsCredits
                | CreateTransferStatus::ExceedsDebits
                | CreateTransferStatus::DebitAccountAlreadyClosed
                | CreateTransferStatus::CreditAccountAlreadyClosed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variant's own name in lower case with underscores before capitals and numbers.
    fn snake_case(name: &str) -> String {
        let mut text = String::new();
        let mut previous_is_digit = false;
        for character in name.chars() {
            let digit_starts = character.is_ascii_digit() && !previous_is_digit;
            if (character.is_ascii_uppercase() || digit_starts) && !text.is_empty() {
                text.push('_');
            }
            text.push(character.to_ascii_lowercase());
            previous_is_digit = character.is_ascii_digit();
        }
        text
    }

    /// Goal: account statuses are 1..26 and created, and convert both ways.
    #[test]
    fn account_numbers() {
        let numbers: Vec<u32> = (1..=26).chain([u32::MAX]).collect();
        let listed: Vec<u32> = CreateAccountStatus::ALL.iter().map(|s| s.number()).collect();
        assert_eq!(listed, numbers);
        for status in CreateAccountStatus::ALL {
            assert_eq!(CreateAccountStatus::try_from(u32::from(*status)), Ok(*status));
            assert_eq!(status.name(), snake_case(&format!("{status:?}")));
            assert_eq!(status.to_string(), status.name());
        }
        for unknown in [0, 27, 28, u32::MAX - 1] {
            let error = CreateAccountStatus::try_from(unknown).unwrap_err();
            assert_eq!(error, StatusUnknown(unknown));
            let error: Box<dyn std::error::Error> = error.into();
            assert!(error.to_string().starts_with(&unknown.to_string()), "{error}");
        }
    }

    /// Goal: transfer statuses are 1..68 without 18 and created, and convert both ways.
    #[test]
    fn transfer_numbers() {
        let numbers: Vec<u32> = (1..=17).chain(19..=68).chain([u32::MAX]).collect();
        let listed: Vec<u32> = CreateTransferStatus::ALL.iter().map(|s| s.number()).collect();
        assert_eq!(listed, numbers);
        for status in CreateTransferStatus::ALL {
            assert_eq!(CreateTransferStatus::try_from(u32::from(*status)), Ok(*status));
            assert_eq!(status.name(), snake_case(&format!("{status:?}")));
            assert_eq!(status.to_string(), status.name());
        }
        for unknown in [0, 18, 69, u32::MAX - 1] {
            assert_eq!(CreateTransferStatus::try_from(unknown), Err(StatusUnknown(unknown)));
        }
    }

    /// Goal: a few names and numbers that clients show are right.
    #[test]
    fn samples() {
        assert_eq!(CreateAccountStatus::Exists.number(), 21);
        assert_eq!(CreateAccountStatus::IdMustNotBeIntMax.name(), "id_must_not_be_int_max");
        assert_eq!(CreateTransferStatus::Exists.number(), 46);
        assert_eq!(CreateTransferStatus::IdAlreadyFailed.number(), 68);
        let status = CreateTransferStatus::ExistsWithDifferentUserData128;
        assert_eq!((status.number(), status.name()), (41, "exists_with_different_user_data_128"));
    }

    /// Goal: exactly the seven transient statuses are transient.
    #[test]
    fn transient() {
        let transient: Vec<u32> = CreateTransferStatus::ALL
            .iter()
            .filter(|status| status.is_transient())
            .map(|status| status.number())
            .collect();
        assert_eq!(transient, [21, 22, 25, 54, 55, 65, 66]);
    }
}
