//! Parquet: rows of a record as columns.
//!
//! Ids and other numbers of 128 bits are 16 bytes, the highest first, so that they sort like the
//! numbers; amounts and balances are `DECIMAL(38, 0)`, which SQL engines can add up; timestamps are
//! moments in UTC with nanoseconds; flags are their names, separated by `|`.

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

/// Rows that are kept together in the file.
const GROUP_ROWS: usize = 1 << 17;
/// Digits of amounts: as many as 16 bytes hold.
const DECIMAL_DIGITS: i32 = 38;
/// The smallest amount that has more.
const DECIMAL_END: u128 = 10_u128.pow(38);

/// How a field is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Small,
    Large,
    Timestamp,
    Bytes16,
    Decimal,
    Names,
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
            Form::Names => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let mut builder = Type::primitive_type_builder(field.name, physical)
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(logical);
        if physical == Physical::FIXED_LEN_BYTE_ARRAY {
            builder = builder.with_length(16);
        }
        if self == Form::Decimal {
            builder = builder.with_precision(DECIMAL_DIGITS).with_scale(0);
        }
        builder.build()
    }
}

/// The values of a column that are not written yet.
#[derive(Debug, Default)]
struct Column {
    int32: Vec<i32>,
    int64: Vec<i64>,
    fixed: Vec<FixedLenByteArray>,
    names: Vec<ByteArray>,
}

/// Writes rows of a record.
pub struct ParquetRows<W: Write + Send> {
    record: &'static Record,
    writer: SerializedFileWriter<W>,
    columns: Vec<Column>,
    rows: usize,
}

impl<W: Write + Send> ParquetRows<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn new(output: W, record: &'static Record) -> Result<ParquetRows<W>> {
        let fields = record.fields.iter().map(|field| Form::of(field).schema(field).map(Arc::new));
        let fields = fields.collect::<Result<Vec<TypePtr>>>()?;
        let schema = Type::group_type_builder(record.name).with_fields(fields).build()?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("florin ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = SerializedFileWriter::new(output, Arc::new(schema), Arc::new(properties))?;
        let columns = record.fields.iter().map(|_| Column::default()).collect();
        Ok(ParquetRows { record, writer, columns, rows: 0 })
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// If it cannot be written; in words if an amount has too many digits.
    ///
    /// # Panics
    ///
    /// If the row is not one of the record.
    pub fn push(&mut self, row: &[u8]) -> std::result::Result<(), String> {
        assert_eq!(row.len(), self.record.size);
        for (field, column) in self.record.fields.iter().zip(&mut self.columns) {
            let value = field.read(row);
            // The field's bytes: the upper ones are zero.
            let bytes = value.to_le_bytes();
            match Form::of(field) {
                Form::Small => {
                    let bytes = bytes.first_chunk().expect("16 bytes are more than 4");
                    column.int32.push(i32::from_le_bytes(*bytes));
                }
                Form::Large | Form::Timestamp => {
                    let bytes = bytes.first_chunk().expect("16 bytes are more than 8");
                    column.int64.push(i64::from_le_bytes(*bytes));
                }
                Form::Decimal if value >= DECIMAL_END => {
                    return Err(format!(
                        "{} is {value}, which has more than the {DECIMAL_DIGITS} digits that \
                         parquet can hold: export as csv or jsonl",
                        field.name
                    ));
                }
                Form::Bytes16 | Form::Decimal => {
                    column.fixed.push(value.to_be_bytes().to_vec().into());
                }
                Form::Names => column.names.push(field_text(field, row).as_str().into()),
            }
        }
        self.rows += 1;
        if self.rows == GROUP_ROWS { self.write_group().map_err(|e| e.to_string()) } else { Ok(()) }
    }

    fn write_group(&mut self) -> Result<()> {
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let mut writer = group.next_column()?.expect("as many columns as in the schema");
            let count = match writer.untyped() {
                ColumnWriter::Int32ColumnWriter(typed) => {
                    typed.write_batch(&column.int32, None, None)
                }
                ColumnWriter::Int64ColumnWriter(typed) => {
                    typed.write_batch(&column.int64, None, None)
                }
                ColumnWriter::FixedLenByteArrayColumnWriter(typed) => {
                    typed.write_batch(&column.fixed, None, None)
                }
                ColumnWriter::ByteArrayColumnWriter(typed) => {
                    typed.write_batch(&column.names, None, None)
                }
                _ => panic!("the schema has no columns of other types"),
            }?;
            assert_eq!(count, self.rows);
            writer.close()?;
            column.int32.clear();
            column.int64.clear();
            column.fixed.clear();
            column.names.clear();
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
    use crate::protocol::types::{Transfer, transfer_flags};
    use crate::repl::schema::TRANSFER;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use zerocopy::IntoBytes;

    /// Goal: a reader finds the numbers, names and moments that were written.
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
        let mut rows = ParquetRows::new(Vec::new(), &TRANSFER).unwrap();
        rows.push(transfer.as_bytes()).unwrap();
        let error = rows.push(Transfer { amount: 10_u128.pow(38), ..transfer }.as_bytes());
        assert!(error.unwrap_err().contains("export as csv"));
        // The row that failed is not complete: begin anew.
        let mut rows = ParquetRows::new(Vec::new(), &TRANSFER).unwrap();
        rows.push(transfer.as_bytes()).unwrap();
        let bytes = rows.finish().unwrap();
        let name = format!("florin-test-parquet-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, &bytes).unwrap();
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 1);
        let row = reader.get_row_iter(None).unwrap().next().unwrap().unwrap();
        let text = row.to_string();
        for part in [
            "amount: 99999999999999999999999999999999999999",
            "user_data_64: 18446744073709551615",
            "user_data_32: 4294967295",
            "code: 7",
            "flags: \"linked|pending\"",
            "255, 254]",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
