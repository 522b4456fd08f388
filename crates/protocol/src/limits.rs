//! Every written limit that is not a tenant's setting, in one place. Units stand last in the names.

/// The longest message of a client, in bytes (decision 14); over: 413.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// A JSON body, in bytes, where its endpoint says nothing else: many tools with long schemas, and answers to many calls.
pub const JSON_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The body of a message, in bytes: the longest one with every byte escaped fits.
pub const MESSAGE_BODY_BYTES_MAX: usize = 6 * MESSAGE_BYTES_MAX + 4096;
/// The body of a credential, in bytes: its secrets and texts with every byte escaped fit.
pub const VAULT_BODY_BYTES_MAX: usize = 512 * 1024;
/// Arrays and objects within each other in a JSON body.
pub const JSON_DEPTH_MAX: usize = 64;
/// Values in a JSON body, each object, array and their members counted.
pub const JSON_VALUES_MAX: usize = 65_536;
/// What each of them may take of the memory, in bytes: an object with one member takes most, 717 for three that are counted, and
/// there are two of it while one is made of the other.
pub const JSON_VALUE_BYTES: usize = 512;
/// What a body may take without being counted, in bytes: requests in flight are counted themselves.
pub const BODY_BYTES_FREE: usize = 16 * 1024;
/// Memory for bodies that are being read, of all tenants together, in bytes; over: 503.
pub const BODIES_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Of these, what is not kept for tenants with little.
pub const BODIES_BYTES_OPEN_MAX: usize = 96 * 1024 * 1024;
/// The same of one tenant; over: 429. The largest body of any endpoint, read, fits.
pub const BODIES_BYTES_PER_TENANT_MAX: usize = 64 * 1024 * 1024;
/// The same of one client address (of IPv6, a network of 64 bits); over: 429.
pub const BODIES_BYTES_PER_ADDRESS_MAX: usize = 64 * 1024 * 1024;
/// A session's metadata as JSON, in bytes (decision 14).
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// The default upload limit, in bytes (decision 14); a tenant's `upload_mb` overrides it.
pub const UPLOAD_BYTES_MAX: u64 = 100 * 1024 * 1024;
/// A session's default lifetime, in seconds.
pub const TTL_DEFAULT_S: u64 = 14_400;
/// The longest lifetime a client may ask for, in seconds: 30 days.
pub const TTL_MAX_S: u64 = 30 * 86_400;
/// Sessions that a tenant may have at a time (contract §1); its `limits.concurrent_sessions` overrides it.
pub const CONCURRENT_SESSIONS_DEFAULT: u64 = 10;
/// How long a session that is not persistent is kept after its last response, in seconds (contract §3);
/// `[sessions] idle_s` overrides it.
pub const SESSION_IDLE_DEFAULT_S: u64 = 300;
/// How long an idempotency key stands for the request that used it, in seconds (contract §4).
pub const IDEMPOTENCY_KEY_KEPT_S: u64 = 86_400;
/// Tokens of one kind that one model call can have used: more is an upstream's nonsense, counts no more and costs no more.
/// Sums over any number of calls stay far from overflowing.
pub const TOKENS_PER_CALL_MAX: u64 = 1_000_000_000;
/// Items on one page of a conversation, when the client does not say how many.
pub const CONVERSATION_PAGE_ITEMS_DEFAULT: usize = 50;
/// Items on one page of a conversation.
pub const CONVERSATION_PAGE_ITEMS_MAX: usize = 200;
/// Bytes of items after which a page of a conversation takes no further one.
pub const CONVERSATION_PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The longest `Retry-After` that this server names, in seconds; a usage window says what it needs, up to a day.
pub const RETRY_AFTER_MAX_S: u64 = 3600;
/// Paths in one `file_access`, read and write together: each becomes a mount.
pub const SCOPE_PATHS_MAX: usize = 64;
/// What one tool result may put before the model, in bytes; the rest is cut from the middle with a marker.
pub const TOOL_OUTPUT_BYTES_MAX: usize = 32 * 1024;
/// What the arguments of one call may have as JSON, in bytes: a file of 1 MiB with every second byte escaped fits. They
/// are one event once more when the call runs, and stand in every later prompt.
pub const TOOL_INPUT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Live output of one command on the stream (`tool_use.output_delta`), in bytes; after it the stream is silent
/// until the result.
pub const TOOL_STREAM_BYTES_MAX: usize = 256 * 1024;
/// What one answer of a model may hold, in bytes, text, reasoning and arguments together.
pub const MODEL_ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Client-side tools of one session (contract §4).
pub const CLIENT_TOOLS_MAX: usize = 128;
/// A client-side tool's name, in characters (contract §4).
pub const CLIENT_TOOL_NAME_MAX: usize = 64;
/// A client-side tool's description, in bytes (contract §4).
pub const CLIENT_TOOL_DESCRIPTION_BYTES_MAX: usize = 16 * 1024;
/// A client-side tool's parameter schema as JSON, in bytes.
pub const CLIENT_TOOL_SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Tool calls in one answer of a model.
pub const CALLS_PER_ANSWER_MAX: usize = 64;
/// Model calls in one turn: the bound of the agent loop.
pub const MODEL_CALLS_PER_TURN_MAX: usize = 300;
/// One event's data on the wire, in bytes (decision 52): longer deltas are split, other long fields cut.
pub const EVENT_DATA_BYTES_MAX: usize = 64 * 1024;
/// `.pokee/*.md` together, in bytes (contract §6).
pub const AGENT_CONTEXT_BYTES_MAX: usize = 1024 * 1024;
/// The default time of a Bash call, in milliseconds (decision 18).
pub const BASH_TIMEOUT_DEFAULT_MS: u64 = 120_000;
/// The longest time of a Bash call, in milliseconds (decision 18).
pub const BASH_TIMEOUT_MAX_MS: u64 = 600_000;
/// Silence on a stream before a keep-alive comment, in seconds (decision 45): some proxies cut a stream at 16.
pub const KEEP_ALIVE_S: u64 = 10;
/// Padding of a keep-alive comment, in bytes: proxies hold back shorter ones (decision 11).
pub const KEEP_ALIVE_BYTES: usize = 1024;
/// Sessions listed in one answer.
pub const SESSIONS_LISTED_MAX: usize = 10_000;
/// What a tenant's folders may take of the disk, in bytes (contract §1); a tenant's `workspace_gb` overrides it.
pub const WORKSPACE_BYTES_MAX: u64 = 100 * 1024 * 1024 * 1024;
/// What is kept free of a disk that workspaces share with the database, in bytes; or a twentieth of a smaller disk.
pub const STORAGE_RESERVED_BYTES: u64 = 256 * 1024 * 1024;
/// Files, folders and links that a tenant's folders may have; a tenant's `workspace_files` overrides it.
pub const WORKSPACE_FILES_MAX: u64 = 1_000_000;
/// The same in files (inodes), which are made faster than a small disk's can be counted; or a tenth of what a smaller disk
/// may have.
pub const STORAGE_RESERVED_FILES: u64 = 20_000;
/// The end of a shared disk, which is for tenants that take less than an equal share of it, in bytes; or a tenth of a
/// smaller disk.
pub const STORAGE_SHARED_BYTES: u64 = 10 * 1024 * 1024 * 1024;
/// The same in files (inodes); or a fifth of what a smaller disk may have.
pub const STORAGE_SHARED_FILES: u64 = 200_000;
/// The file whose blocks the server gives back to itself when the disk is full, in bytes; or a twentieth of a smaller disk.
pub const STORAGE_RESERVE_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// How often what runs in a full workspace is stopped because the workspace grows all the same, before no further command
/// runs in it.
pub const STOPS_WHILE_FULL_MAX: u32 = 4;
/// What one answer sends of a file, in bytes: as much as a workspace may hold by default. A longer file is mostly holes, which
/// cost their maker nothing and would cost everybody else the way.
pub const FILE_SENT_BYTES_MAX: u64 = WORKSPACE_BYTES_MAX;
/// Entries of one directory listing; a larger directory is cut and says so in a header.
pub const DIRECTORY_ENTRIES_MAX: usize = 100_000;
/// One event of an upstream's stream, in bytes; a whole file may stand in one delta's arguments.
pub const UPSTREAM_EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// One upstream stream on the wire, in bytes: framing outweighs short deltas fifty times and more.
pub const UPSTREAM_STREAM_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// What is read of an upstream's error body, in bytes.
pub const UPSTREAM_ERROR_BYTES_MAX: usize = 64 * 1024;
/// Further attempts at one upstream after the first, before anything was heard from it.
pub const UPSTREAM_RETRIES_MAX: u32 = 2;
/// The longest `Retry-After` that is waited for, in seconds; a longer one moves on to the next upstream.
pub const UPSTREAM_RETRY_AFTER_MAX_S: u64 = 30;
/// Upstreams that one model may name.
pub const UPSTREAMS_PER_MODEL_MAX: usize = 8;
/// One request to the built-in demo planner, in bytes: a long conversation with its tool results.
pub const PLANNER_REQUEST_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Client connections at a time, or half of the process's open files where that is less; for further ones the longest idle are ended.
pub const CONNECTIONS_MAX: usize = 4096;
/// One client address (of IPv6, a network of 64 bits) has at most one in so many of them without a key.
pub const CONNECTIONS_PER_ADDRESS_SHARE: usize = 8;
/// How long a connection may be without a request, in seconds; `[http] idle_s` overrides it.
pub const CONNECTION_IDLE_DEFAULT_S: u64 = 90;
/// How long the head of a request may take from its first byte, in seconds; the connection is closed after it.
pub const REQUEST_HEAD_MAX_S: u64 = 10;
/// The head of a request, in bytes: its URI and its fields; over: 431.
pub const REQUEST_HEAD_BYTES_MAX: usize = 32 * 1024;
/// Fields in such a head; over: 431.
pub const REQUEST_HEADERS_MAX: usize = 100;
/// Requests at a time on one connection of HTTP/2.
pub const HTTP2_STREAMS_MAX: u32 = 100;
/// How long a request's body may let its reader wait in all, in seconds, and for one second more it has to bring
/// [`REQUEST_BODY_BYTES_PER_S_MIN`]; the request is refused after it.
pub const REQUEST_BODY_GRACE_S: u64 = 20;
/// The slowest that a body may come, in bytes a second.
pub const REQUEST_BODY_BYTES_PER_S_MIN: u64 = 1024;
/// Silence within a request's body, in seconds; the request is refused after it.
pub const REQUEST_BODY_SILENCE_MAX_S: u64 = 60;
/// Threads on which one tenant's short work waits for the disk at a time; further work of its waits.
pub const TENANT_DISK_THREADS_MAX: usize = 16;
/// Threads on which one tenant's long work runs at a time: archives, listings, removals.
pub const TENANT_BULK_THREADS_MAX: usize = 2;
/// Threads on which one tenant's storage is looked at, and measured where that is due, for its turns and for the server.
pub const TENANT_LOOKING_THREADS_MAX: usize = 1;
/// Threads for the server's own work, beside what tenants have.
pub const SERVER_THREADS_MAX: usize = 128;
/// Pieces of one tenant's work of either kind that wait for such a thread; over: 429.
pub const BLOCKING_WAITING_MAX: usize = 4096;
/// Archives that one tenant downloads at a time; over: 429.
pub const TENANT_ARCHIVES_MAX: usize = 4;
/// Streams of events that one tenant's clients read at a time, those that a message is answered with included; over: 429.
pub const TENANT_READERS_MAX: usize = 1024;
/// Sandboxes of one tenant that are being started at a time; further ones wait.
pub const TENANT_SANDBOX_STARTS_MAX: usize = 4;
/// How long a turn may run, all attempts together, in seconds (contract §1); a tenant's `limits.turn_timeout_s`
/// overrides it.
pub const TURN_TIMEOUT_DEFAULT_S: u64 = 90 * 60;
/// The balance below which a `hard` ledger starts no turn, in credits; `credits.minimum` overrides it.
pub const CREDITS_PER_TURN_MIN: f64 = 1.0;
/// The output that a model call is expected to have when its credits are reserved, in tokens.
pub const OUTPUT_TOKENS_RESERVED: u64 = 1024;
/// Bytes of a prompt that are taken for one token when its credits are reserved: fewer than most text needs, so that
/// a reservation rather holds too much.
pub const PROMPT_BYTES_PER_TOKEN: u64 = 3;
/// Ledgers on one server.
pub const LEDGERS_MAX: usize = 10_000;
/// Why credits were added or corrected, in bytes.
pub const POSTING_REASON_BYTES_MAX: usize = 500;
/// What an operator calls a posting, so that it is made once, in bytes.
pub const POSTING_KEY_BYTES_MAX: usize = 100;
/// Postings on one page of a ledger.
pub const POSTINGS_SHOWN_MAX: usize = 1000;
/// Audit records read from the store at once.
pub const AUDIT_PAGE_EVENTS: usize = 500;
/// The head of a request or an answer at the egress proxy, in bytes; over: 431.
pub const EGRESS_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields in such a head.
pub const EGRESS_HEADERS_MAX: usize = 100;
/// How long such a head may take from its first byte on, in milliseconds.
pub const EGRESS_HEAD_TIMEOUT_MS: u64 = 10_000;
/// How long a client's connection may stand without beginning a request, in milliseconds.
pub const EGRESS_KEEP_ALIVE_TIMEOUT_MS: u64 = 60_000;
/// A TLS ClientHello with its record headers, in bytes: one with post-quantum keys has under 2 KiB.
pub const EGRESS_HELLO_BYTES_MAX: usize = 32 * 1024;
/// How long a ClientHello may take, in milliseconds.
pub const EGRESS_HELLO_TIMEOUT_MS: u64 = 10_000;
/// How long a name may take to resolve, in milliseconds.
pub const EGRESS_RESOLVE_TIMEOUT_MS: u64 = 5_000;
/// How long one address may take to answer a dial, in milliseconds.
pub const EGRESS_DIAL_TIMEOUT_MS: u64 = 10_000;
/// Addresses of one name that are dialled, in turn.
pub const EGRESS_ADDRESSES_TRIED_MAX: usize = 4;
/// CNAME records between a name and its addresses.
pub const EGRESS_CNAMES_MAX: usize = 8;
/// How long an upstream may take to begin its answer, in milliseconds: a model may think for long.
pub const EGRESS_ANSWER_TIMEOUT_MS: u64 = 600_000;
/// How long a tunnel may be silent in both directions, in milliseconds.
pub const EGRESS_IDLE_TIMEOUT_MS: u64 = 900_000;
/// Requests on one connection of a client.
pub const EGRESS_REQUESTS_PER_CONNECTION_MAX: usize = 1_000;
/// Interim (1xx) answers before the answer.
pub const EGRESS_INTERIM_ANSWERS_MAX: usize = 8;
/// Connections of the proxy at a time, clients' legs counted; over: 503.
pub const EGRESS_CONNECTIONS_MAX: usize = 10_000;
/// Connections of one tenant's sessions at a time; over: 429. A process that may open few files has fewer.
pub const EGRESS_TENANT_CONNECTIONS_MAX: usize = 2_500;
/// Connections of one session at a time; over: 429.
pub const EGRESS_SESSION_CONNECTIONS_MAX: usize = 256;
/// What one session may send and receive through the proxy in its life, in bytes; over: 429, and tunnels are closed.
pub const EGRESS_SESSION_BYTES_MAX: u64 = 100 * 1024 * 1024 * 1024;
/// Different names under wildcard patterns that one session may ask for in a minute; over: 429.
pub const EGRESS_WILDCARD_NAMES_PER_MINUTE_MAX: usize = 100;
/// Certificates that one session's authority keeps at hand.
pub const EGRESS_LEAVES_MAX: usize = 256;
/// Audit records that wait for their writer; askers wait beyond it.
pub const EGRESS_AUDIT_QUEUE_RECORDS_MAX: usize = 1_024;
/// One audit segment, in bytes; the next record begins another.
pub const EGRESS_AUDIT_SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What an audit record quotes of a client's words, in bytes; more is cut, and the record says so.
pub const EGRESS_AUDIT_TEXT_BYTES_MAX: usize = 512;
/// Credentials of one tenant.
pub const VAULT_CREDENTIALS_MAX: usize = 256;
/// One secret of a credential, in bytes.
pub const VAULT_SECRET_BYTES_MAX: usize = 16 * 1024;
/// Hosts that one credential may go to.
pub const VAULT_HOSTS_MAX: usize = 16;
/// What else is said of a credential (a URL, a client's id, a scope), in bytes each.
pub const VAULT_TEXT_BYTES_MAX: usize = 2 * 1024;
/// What is read of a token endpoint's answer, in bytes.
pub const TOKEN_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Calls of a token endpoint for one new token.
pub const TOKEN_CALLS_MAX: u32 = 3;
/// How long one such call may take, in milliseconds.
pub const TOKEN_CALL_TIMEOUT_MS: u64 = 10_000;
/// How long a credential that could not be renewed is not tried again, in milliseconds.
pub const TOKEN_FAILURE_KEPT_MS: u64 = 15_000;
