//! What hostile hosts do.

/// What a host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Runs what it is told, for as far as anybody can see.
    Behaves,

    // Before there are versions.
    /// Sends lines that are no version, for ever.
    PrefacesForEver,
    /// Sends a version that has no end.
    EndlessVersion,
    /// Speaks another protocol.
    SpeaksHttp,
    /// Sends the first byte of its version; the next would be a minute later.
    DripsVersion,

    // In the handshake.
    /// Announces a packet of 4 GiB.
    HugePacket,
    /// Announces a packet of no bytes.
    EmptyPacket,
    /// Sends the first byte of a packet; the next would be a minute later.
    DripsHandshake,
    /// Offers algorithms of its own invention, with names that a terminal would obey.
    InventsAlgorithms,
    /// Begins key exchanges, for ever.
    BeginsHandshakeForEver,
    /// Sends messages that mean nothing, for ever.
    IgnoresInHandshake,
    /// Shows a key that it does not have.
    ForgesSignature,

    /// Is another host each time.
    ChangesKeyEachTime,

    // In the login.
    /// Sends the first byte of its answer; the next would be a minute later.
    DripsLogin,
    /// Sends a banner in pieces, for ever.
    BannersForEver,
    /// Tells its extensions, for ever.
    ExtendsForEver,
    /// Announces four billion extensions.
    ExtendsHugely,
    /// Lets us in before we have asked.
    WelcomesUnasked,
    /// Would take the key, for ever.
    LikesKeyForEver,
    /// Wants more, whatever it is given.
    WantsMore,
    /// Says good-bye, in words that a terminal would obey.
    SaysGoodbye,

    // When the channel is opened.
    /// Sends the first byte of its answer; the next would be a minute later.
    DripsChannel,
    /// Refuses, in words that a terminal would obey.
    RefusesChannel,
    /// Opens a channel that we have not asked for.
    ConfirmsAnother,
    /// Opens our channel for no bytes, and never for more.
    ClosedWindow,
    /// Opens our channel for as much as we like, and reads nothing.
    NeverReads,
    /// Opens our channel for packets of no bytes.
    EmptyPackets,
    /// Opens our channel for packets of one byte.
    TinyPackets,
    /// Opens our window beyond what a number can hold, and then further, and runs what it is told.
    OverflowsWindow,
    /// Opens channels of its own, for ever.
    OpensChannels,
    /// Opens channels of its own, for ever, and takes none of our answers.
    OpensChannelsDeaf,
    /// Asks for things that want an answer, for ever, and takes none.
    AsksForEver,

    // When it is told to run something.
    /// Sends the first byte of its answer; the next would be a minute later.
    DripsCommand,
    /// Refuses, twice.
    RefusesTwice,
    /// Agrees, twice, and runs it.
    AgreesTwice,
    /// Tells success of a channel that is not ours, and closes ours.
    ForgesStatus,
    /// Tells that it has ended well, and nothing else.
    StatusOnly,
    /// Tells that it has ended well, then that it starts.
    StatusBeforeStart,
    /// Tells that it starts before it has what is to be started, and that it has ended well.
    StartsTooEarly,
    /// Starts what another one has asked for.
    StartsAnother,
    /// Writes what is no start, for ever.
    NoiseForEver,
    /// Closes the channel when it has all that it needs, and says nothing.
    ClosesUnstarted,

    // When it runs.
    /// Tells that it has ended well before it sends the output.
    StatusBeforeOutput,
    /// Tells that it has ended with 7, and then with 0.
    SecondThoughts,
    /// Tells that it has ended with 7, closes, and tells that it has ended with 0.
    StatusAfterClose,
    /// Tells a status that is cut off.
    HalfStatus,
    /// Ends with a status of 256, which a byte would take for 0.
    Status256,
    /// Ends with a status of minus one.
    StatusMinusOne,
    /// Ends by a signal with a long name that a terminal would obey.
    InventsSignal,
    /// Ends by a signal without a name.
    NamelessSignal,
    /// Tells that it has ended well, and cuts the connection before the output is whole.
    CutsOutput,
    /// Sends output after the output's end.
    OutputAfterEnd,
    /// Sends output after the channel's end.
    OutputAfterClose,
    /// Refuses to run what it has started.
    RefusesLate,
    /// Tells the end of the output, and nothing more.
    EndsOutputOnly,
    /// Sends output without end, whatever the window.
    OutputForEver,
    /// The same, once it has told an exit status.
    OutputForEverAfterStatus,
    /// Sends one byte of output; the next would be a minute later.
    DripsOutput,
    /// Sends a packet that is larger than its content.
    HalfData,
    /// Sends a packet of 35,000 bytes, and ends well.
    LongPacket,
    /// Sends a packet of 300,000 bytes.
    OverlongPacket,
    /// Changes keys, for ever.
    ChangesKeysForEver,
    /// Changes keys to those of another host, and ends well.
    ChangesIdentity,
    /// Begins to change keys, and does not go on.
    BeginsKeyChange,
    /// Reads nothing more.
    TurnsDeaf,
}
