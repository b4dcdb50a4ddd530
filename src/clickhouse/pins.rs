//! The settings that our statements carry: each group with its effect on the data otherwise.
//!
//! The profiles of the server and of its users belong to others, and apply to our statements. An insert is an `INSERT …
//! SELECT`, so with `limit = 100` it stores a hundred rows and reports success. So each statement pins every setting
//! that can shorten, filter, cache, retype or split it. The owner of the profile keeps settings that only slow a
//! statement down, or make it fail. The exception are limits that a question about a large table reaches one day.
//!
//! The list was made from all settings of ClickHouse 26.7. They were changed under each of our statements, alone and
//! together; the list has those that changed rows or an answer, and others of the same kind. `it settings` reviews the
//! settings of the server that it runs on, and fails on a new one.

/// Which statements bring a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statements {
    All,
    Questions,
    Inserts,
}

/// Settings that are pinned for one reason.
#[derive(Debug)]
pub struct Pins {
    pub of: Statements,
    /// The effect on the data without them.
    pub otherwise: &'static str,
    /// Names and values.
    pub settings: &'static [(&'static str, &'static str)],
}

pub const PINS: &[Pins] = &[
    Pins {
        of: Statements::All,
        otherwise: "ClickHouse could read our statements in another way than the one that was tested",
        settings: &[
            ("compatibility", ""), // would change the defaults of all that is not pinned
            ("dialect", "clickhouse"),
            ("allow_experimental_analyzer", "1"),
            ("implicit_table_at_top_level", ""),
            ("ast_fuzzer_runs", "0"), // repeats statements, inserts too, with changes
            ("replace_running_query", "0"),
        ],
    },
    Pins {
        of: Statements::All,
        otherwise: "an insert could store a part of its rows, and an answer could lack some: events would be lost or stored twice",
        settings: &[
            ("limit", "0"),
            ("offset", "0"),
            ("additional_table_filters", "{}"),
            ("additional_result_filter", ""),
            ("allow_experimental_parallel_reading_from_replicas", "0"), // with a custom key a replica takes its share of the rows, and ours is the only one
            ("parallel_replicas_count", "0"),
            ("parallel_replica_offset", "0"),
            ("parallel_replicas_custom_key", ""),
            ("make_distributed_plan", "0"),
            ("partial_result_on_first_cancel", "0"),
            ("implicit_transaction", "0"), // rows can be seen only later than the insert has said
        ],
    },
    Pins {
        of: Statements::All,
        otherwise: "a statement that reaches a limit could end with a part of its rows and no error: events would be lost or stored twice",
        settings: &[
            ("read_overflow_mode", "throw"),
            ("read_overflow_mode_leaf", "throw"),
            ("result_overflow_mode", "throw"),
            ("group_by_overflow_mode", "throw"),
            ("distinct_overflow_mode", "throw"),
            ("sort_overflow_mode", "throw"),
            ("set_overflow_mode", "throw"),
            ("join_overflow_mode", "throw"),
            ("transfer_overflow_mode", "throw"),
            ("timeout_overflow_mode", "throw"),
            ("timeout_overflow_mode_leaf", "throw"),
        ],
    },
    Pins {
        of: Statements::All,
        otherwise: "our statements could reach a limit as the tables grow, and nothing more would be stored",
        settings: &[
            ("max_rows_to_read", "0"),
            ("max_rows_to_read_leaf", "0"),
            ("max_bytes_to_read", "0"),
            ("max_bytes_to_read_leaf", "0"),
            ("max_columns_to_read", "0"),
            ("max_partitions_to_read", "-1"),
            ("max_result_rows", "0"),
            ("max_result_bytes", "0"),
            ("max_rows_to_group_by", "0"),
            ("max_rows_in_distinct", "0"),
            ("max_bytes_in_distinct", "0"),
            ("max_rows_to_sort", "0"),
            ("max_bytes_to_sort", "0"),
            ("max_rows_in_set", "0"),
            ("max_bytes_in_set", "0"),
            ("max_temporary_columns", "0"),
            ("max_temporary_non_const_columns", "0"),
            ("max_estimated_execution_time", "0"),
            ("max_execution_time_leaf", "0"),
            ("min_execution_speed", "0"),
            ("min_execution_speed_bytes", "0"),
            ("max_query_size", "262144"),
            ("max_ast_depth", "1000"),
            ("max_ast_elements", "50000"),
            ("max_expanded_ast_elements", "500000"),
            ("max_parser_depth", "1000"),
            ("max_parser_backtracks", "1000000"),
            ("max_subquery_depth", "100"),
            ("query_plan_max_optimizations_to_apply", "10000"),
            ("format_binary_max_string_size", "1073741824"), // every row would be rejected as too long
        ],
    },
    Pins {
        of: Statements::All,
        otherwise: "an answer could come before its statement has ended, or in another form, and be misunderstood",
        settings: &[
            ("wait_end_of_query", "1"), // the status is known only at the end, so it is sent only then
            ("http_response_buffer_size", "2097152"), // until then answers wait in memory, not in a file
            ("http_write_exception_in_output_format", "0"),
            ("http_response_headers", "{}"),
            ("send_progress_in_http_headers", "0"),
            ("data_type_default_nullable", "0"),
            ("inject_random_order_for_select_without_order_by", "0"),
            ("extremes", "0"),
        ],
    },
    Pins {
        of: Statements::Questions,
        otherwise: "rows could be seen that are not there, or not be seen where they are: they would be stored twice, or not again",
        settings: &[
            ("final", "0"),
            ("apply_deleted_mask", "1"),
            ("apply_patch_parts", "1"),
            ("apply_mutations_on_fly", "0"),
            ("ignore_cold_parts_seconds", "0"),
            ("optimize_using_constraints", "0"),
            ("use_query_cache", "0"),
            ("query_cache_for_subqueries", "0"),
            ("use_query_condition_cache", "0"),
        ],
    },
    Pins {
        of: Statements::Questions,
        otherwise: "an answer could come with other types or in a form that is not understood, and nothing more would be stored",
        settings: &[
            ("aggregate_functions_null_for_empty", "0"),
            ("empty_result_for_aggregation_by_empty_set", "0"),
            ("cast_keep_nullable", "0"),
            ("transform_null_in", "0"),
            ("output_format_json_quote_64bit_integers", "0"),
            ("output_format_json_validate_utf8", "1"), // such a text would make its whole answer unreadable
            ("rewrite_in_to_join", "0"),
        ],
    },
    Pins {
        of: Statements::Questions,
        otherwise: "questions could fail or take too long, and nothing more would be stored",
        settings: &[
            ("force_primary_key", "0"),
            ("force_index_by_date", "0"),
            ("force_optimize_projection", "0"),
            ("force_optimize_projection_name", ""),
            // If merges cannot keep up, a question opens thousands of parts of a few rows each. Reading one column
            // before the others then takes more than twice as long. For large parts it makes no difference.
            ("optimize_move_to_prewhere", "0"),
            ("max_execution_time", "10"), // we wait no longer: `clickhouse::RESPONSE_TIMEOUT`
        ],
    },
    Pins {
        of: Statements::Inserts,
        otherwise: "an answer could come before the rows are stored: they would be lost in a crash",
        settings: &[
            ("async_insert", "0"),
            ("input_format_connection_handling", "0"), // a request that broke off would be taken for a whole one
            ("input_format_max_block_wait_ms", "0"),
            ("max_execution_time", "0"),
        ],
    },
    Pins {
        of: Statements::Inserts,
        otherwise: "rows could be dropped in silence because they, or an insert's token, look like earlier ones",
        settings: &[
            ("insert_deduplicate", "0"),
            ("deduplicate_insert", "disable"),
            ("deduplicate_insert_select", "disable"),
            ("insert_deduplication_token", ""), // would be every insert's, and all but the first be dropped
            ("optimize_on_insert", "0"),        // merges an insert's rows before it is written
        ],
    },
    Pins {
        of: Statements::Inserts,
        otherwise: "an insert could become several parts, and a crash between them would leave some of its rows",
        settings: &[
            ("max_insert_threads", "1"),
            ("max_insert_block_size", "1048576"),
            ("max_insert_block_size_bytes", "0"),
            ("max_block_size", "1048576"),
            ("min_insert_block_size_rows", "1048576"),
            ("min_insert_block_size_bytes", "0"),
            ("use_strict_insert_block_limits", "0"),
            ("input_format_max_block_size_bytes", "0"),
            ("input_format_parallel_parsing", "0"),
        ],
    },
    Pins {
        of: Statements::Inserts,
        otherwise: "each insert would take the server longer, for statistics of columns that its merges make anyway",
        settings: &[("materialize_statistics_on_insert", "0")], // 1 by default before 26.4
    },
    Pins {
        of: Statements::Inserts,
        otherwise: "rows could be misread, or left out because they are misread",
        settings: &[
            ("input_format_binary_decode_types_in_binary_format", "0"),
            ("input_format_native_decode_types_in_binary_format", "0"),
            ("input_format_with_names_use_header", "1"),
            ("input_format_with_types_use_header", "1"),
            ("input_format_allow_errors_num", "0"),
            ("input_format_allow_errors_ratio", "0"),
        ],
    },
];

/// Those that the oldest supported version, 25.8, does not know: it would refuse a statement that brings them.
pub const YOUNG: &[&str] = &[
    "ast_fuzzer_runs",
    "deduplicate_insert",
    "deduplicate_insert_select",
    "inject_random_order_for_select_without_order_by",
    "input_format_connection_handling",
    "input_format_max_block_wait_ms",
    "max_insert_block_size_bytes",
    "query_cache_for_subqueries",
    "rewrite_in_to_join",
    "use_strict_insert_block_limits",
];
