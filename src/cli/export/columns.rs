//! Parquet: rows of a record as columns.
//!
//! Amounts and balances are `DECIMAL(38, 0)`, which SQL engines can add up. The few numbers of 128
//! bits that have 39 digits do not fit: they are null there. Other numbers of 128 bits are 16
//! bytes, big-endian, so that they sort like the numbers. Every number of 128 bits also has a
//! second column of decimal digits, whose name ends in `_text`: it holds all of them, and can be
//! compared with a number that a user writes. Timestamps are moments in UTC with nanoseconds.
//! Flags are names, separated by `|`.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};

use crate::repl::answer::field_text;
use crate::repl::schema::{Field, Kind, Record};

/// Number of rows in a row group of the file.
const GROUP_ROWS: usize = 1 << 17;
/// Number of digits of amounts: the maximum of SQL engines.
pub const DECIMAL_DIGITS: i32 = 38;
/// The smallest amount with more digits.
const DECIMAL_END: u128 = 10_u128.pow(38);
/// Suffix of the names of columns with decimal digits.
const TEXT_SUFFIX: &str = "_text";

/// How a field is stored in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Small,
    Large,
    Timestamp,
    Bytes16,
    Decimal,
    Names,
    /// Decimal digits, in a column of its own beside another one.
    Digits,
}

impl Form {
    fn of(field: &Field) -> Form {
        match field.kind {
            Kind::Number if field.size == 16 && field.name != "amount" => Form::Bytes16,
            Kind::Number if field.size == 16 => Form::Decimal,
            Kind::Number if field.size == 8 => Form::Large,
            Kind::Number => Form::Small,
            Kind::Balance => Form::Decimal,
            Kind::Timestamp => Form::Timestamp,
            Kind::Flags(_) | Kind::AccountStatus | Kind::TransferStatus | Kind::EventType => {
                Form::Names
            }
        }
    }

    fn schema(self, field: &Field) -> Result<Type> {
        let bits = i8::try_from(field.size * 8).unwrap_or_default();
        let (physical, logical) = match self {
            Form::Small => (Physical::INT32, Some(LogicalType::integer(bits.max(8), false))),
            Form::Large => (Physical::INT64, Some(LogicalType::integer(64, false))),
            Form::Timestamp => {
                (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::NANOS)))
            }
            Form::Bytes16 => (Physical::FIXED_LEN_BYTE_ARRAY, None),
            Form::Decimal => {
                (Physical::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::decimal(0, DECIMAL_DIGITS)))
            }
            Form::Names | Form::Digits => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let is_decimal = self == Form::Decimal;
        let suffix = if self == Form::Digits { TEXT_SUFFIX } else { "" };
        let name = format!("{}{suffix}", field.name);
        let repetition = if is_decimal { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        let mut builder = Type::primitive_type_builder(&name, physical)
            .with_repetition(repetition)
            .with_logical_type(logical);
        if physical == Physical::FIXED_LEN_BYTE_ARRAY {
            builder = builder.with_length(16);
        }
        if is_decimal {
            builder = builder.with_precision(DECIMAL_DIGITS).with_scale(0);
        }
        builder.build()
    }
}

/// A column with the values that are not written yet.
#[derive(Debug)]
struct Column {
    field: &'static Field,
    form: Form,
    int32: Vec<i32>,
    int64: Vec<i64>,
    fixed: Vec<FixedLenByteArray>,
    texts: Vec<ByteArray>,
    /// In a column of decimals, whether each row has a value: 1 or 0.
    levels: Vec<i16>,
}

impl Column {
    fn new(field: &'static Field, form: Form) -> Column {
        Column {
            field,
            form,
            int32: Vec::new(),
            int64: Vec::new(),
            fixed: Vec::new(),
            texts: Vec::new(),
            levels: Vec::new(),
        }
    }

    /// Returns the columns of a record: one for each field, then those of digits.
    fn all_of(record: &'static Record) -> Vec<Column> {
        let first = record.fields.iter().map(|field| Column::new(field, Form::of(field)));
        let wide = record.fields.iter().filter(|field| field.size == 16);
        first.chain(wide.map(|field| Column::new(field, Form::Digits))).collect()
    }

    fn push(&mut self, row: &[u8]) {
        let value = self.field.read(row);
        // The field's bytes: the upper ones are zero.
        let bytes = value.to_le_bytes();
        match self.form {
            Form::Small => {
                let bytes = bytes.first_chunk().expect("16 bytes are more than 4");
                self.int32.push(i32::from_le_bytes(*bytes));
            }
            Form::Large | Form::Timestamp => {
                let bytes = bytes.first_chunk().expect("16 bytes are more than 8");
                self.int64.push(i64::from_le_bytes(*bytes));
            }
            Form::Decimal => {
                let is_there = value < DECIMAL_END;
                self.levels.push(i16::from(is_there));
                if is_there {
                    self.fixed.push(value.to_be_bytes().to_vec().into());
                }
            }
            Form::Bytes16 => self.fixed.push(value.to_be_bytes().to_vec().into()),
            Form::Names | Form::Digits => {
                self.texts.push(field_text(self.field, row).as_str().into());
            }
        }
    }

    fn write(&mut self, writer: &mut ColumnWriter<'_>) -> Result<()> {
        let levels = Some(&self.levels[..]).filter(|_| self.form == Form::Decimal);
        match writer {
            ColumnWriter::Int32ColumnWriter(typed) => typed.write_batch(&self.int32, None, None),
            ColumnWriter::Int64ColumnWriter(typed) => typed.write_batch(&self.int64, None, None),
            ColumnWriter::FixedLenByteArrayColumnWriter(typed) => {
                typed.write_batch(&self.fixed, levels, None)
            }
            ColumnWriter::ByteArrayColumnWriter(typed) => {
                typed.write_batch(&self.texts, None, None)
            }
            _ => panic!("the schema has no columns of other types"),
        }?;
        self.int32.clear();
        self.int64.clear();
        self.fixed.clear();
        self.texts.clear();
        self.levels.clear();
        Ok(())
    }
}

/// Writes rows of a record.
pub struct ParquetRows<W: Write + Send> {
    record: &'static Record,
    writer: SerializedFileWriter<W>,
    columns: Vec<Column>,
    rows: usize,
    /// Amounts and balances that did not fit their decimals.
    pub wide_count: u64,
}

impl<W: Write + Send> ParquetRows<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn new(output: W, record: &'static Record) -> Result<ParquetRows<W>> {
        let columns = Column::all_of(record);
        let fields = columns.iter().map(|column| column.form.schema(column.field).map(Arc::new));
        let fields = fields.collect::<Result<Vec<TypePtr>>>()?;
        let schema = Type::group_type_builder(record.name).with_fields(fields).build()?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("florin ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = SerializedFileWriter::new(output, Arc::new(schema), Arc::new(properties))?;
        Ok(ParquetRows { record, writer, columns, rows: 0, wide_count: 0 })
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    ///
    /// # Panics
    ///
    /// If the row is not one of the record.
    pub fn push(&mut self, row: &[u8]) -> Result<()> {
        assert_eq!(row.len(), self.record.size);
        for column in &mut self.columns {
            column.push(row);
            let is_wide = column.form == Form::Decimal && column.levels.last() == Some(&0);
            self.wide_count += u64::from(is_wide);
        }
        self.rows += 1;
        if self.rows == GROUP_ROWS { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> Result<()> {
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let mut writer = group.next_column()?.expect("as many columns as in the schema");
            column.write(writer.untyped())?;
            writer.close()?;
        }
        group.close()?;
        self.rows = 0;
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn finish(mut self) -> Result<W> {
        if self.rows > 0 {
            self.write_group()?;
        }
        self.writer.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::export::records::{TRANSFER_MOVED, TransferMoved};
    use crate::protocol::types::{Transfer, transfer_flags};
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use zerocopy::IntoBytes;

    /// Goal: a reader finds the numbers, names and moments that were written; an amount of 39
    /// digits is null as a decimal and whole as text.
    #[test]
    fn round_trip() {
        let transfer = Transfer {
            id: u128::MAX - 1,
            amount: 10_u128.pow(38) - 1,
            user_data_64: u64::MAX,
            user_data_32: u32::MAX,
            code: 7,
            flags: transfer_flags::PENDING | transfer_flags::LINKED,
            timestamp: 1_234_567_890_000_000_005,
            ..Transfer::default()
        };
        let mut rows = ParquetRows::new(Vec::new(), &TRANSFER_MOVED).unwrap();
        rows.push(TransferMoved::new(&transfer).as_bytes()).unwrap();
        assert_eq!(rows.wide_count, 0);
        let wide = Transfer { amount: u128::MAX, flags: 0, ..transfer };
        rows.push(TransferMoved::new(&wide).as_bytes()).unwrap();
        assert_eq!(rows.wide_count, 2);
        rows.push(TransferMoved::new(&Transfer { amount: 5, ..wide }).as_bytes()).unwrap();
        let bytes = rows.finish().unwrap();
        let name = format!("florin-test-parquet-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, &bytes).unwrap();
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let texts: Vec<String> =
            reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(texts.len(), 3);
        for (text, parts) in [
            (
                &texts[0],
                &[
                    ", amount: 99999999999999999999999999999999999999.",
                    "user_data_64: 18446744073709551615",
                    "user_data_32: 4294967295",
                    "code: 7",
                    "flags: \"linked|pending\"",
                    "255, 254]",
                    "id_text: \"340282366920938463463374607431768211454\"",
                    "posted_amount: 0.",
                ][..],
            ),
            (
                &texts[1],
                &[
                    ", amount: null",
                    "posted_amount: null",
                    ", amount_text: \"340282366920938463463374607431768211455\"",
                    "posted_amount_text: \"340282366920938463463374607431768211455\"",
                ],
            ),
            (&texts[2], &[", amount: 5.", "posted_amount: 5.", ", amount_text: \"5\""]),
        ] {
            for part in parts {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }
}
